"""For people who test what they build on a language model: a fixture, ``llama_server``, that answers.

    @pytest.mark.llama_model("org/model:q4_k_m", ctx_size=2048)
    def test_it_knows_its_name(llama_server):
        assert "Llama" in llama_server.chat("Who are you?", temperature=0).text

pytest loads this module for everybody in whose environment the package is, so it imports nothing but pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from llama_runner.client.sync_client import Client
    from llama_runner.pytest_servers import Servers, Wish

_MARK = (
    "llama_model(*models, **options): the model that llama_server serves, as `llama-runner run` takes it; the test "
    "runs once with each. The options are those of ServerOptions and of Runner.prepare."
)
_WISHES = pytest.StashKey["dict[str, Wish]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a project say which model its tests need."""
    parser.addini("llama_model", "the model of llama_server where no mark says another; default: the demo model")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", _MARK)
    config.stash[_WISHES] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the fixture the model that the mark of a test, its class or its module says."""
    mark = metafunc.definition.get_closest_marker("llama_model")
    if mark is None or "llama_server" not in metafunc.fixturenames:
        return
    wishes = [_wish(metafunc.config, model, mark.kwargs) for model in mark.args or (None,)]
    metafunc.parametrize("llama_server", wishes, indirect=True, ids=str, scope="session")


def _wish(config: pytest.Config, model: object, options: Mapping[str, Any]) -> Wish:
    """Return the same object for the same wish: by that pytest sees that it need not ask the fixture again."""
    from llama_runner.pytest_servers import Wish  # noqa: PLC0415 - for tests that use it

    wish = Wish.of(model, options)
    return config.stash[_WISHES].setdefault(wish.digest, wish)


@pytest.fixture(scope="session")
def llama_root() -> str | Path | None:
    """Where models and binaries are kept. Override it; None: as for ``llama-runner``."""
    return None


@pytest.fixture(scope="session")
def _llama_servers(
    request: pytest.FixtureRequest, llama_root: str | Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    from llama_runner.pytest_servers import Servers  # noqa: PLC0415 - for tests that use it

    worker = getattr(request.config, "workerinput", {}).get("workerid")
    shared = None if worker is None else tmp_path_factory.getbasetemp().parent / "llama_servers"
    servers = Servers(llama_root, shared, worker)
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def llama_server(request: pytest.FixtureRequest, _llama_servers: Servers) -> Client:
    """Give a client of a running server, ready: ``chat``, ``complete``, ``embed``, ``url``, ``openai_base_url``, ….

    One server for each model, until the end of the session; the workers of pytest-xdist share it.
    """
    wish = getattr(request, "param", None) or _wish(request.config, request.config.getini("llama_model") or None, {})
    return _llama_servers.client(wish)
