"""pytest plugin with a fixture, ``llama_server``, that is a client of a running server.

    @pytest.mark.llama_model("org/model:q4_k_m", ctx_size=2048)
    def test_it_knows_its_name(llama_server):
        assert "Llama" in llama_server.chat("Who are you?", temperature=0).text

pytest loads this module in every environment that has the package, so it imports only pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from llama_runner.client.sync_client import Client
    from llama_runner.pytest_servers import ServerRequest, Servers

_MARK = (
    "llama_model(*models, **options): the model that llama_server serves, as `llama-runner run` takes it; the test "
    "runs once with each. The options are those of ServerOptions and of Runner.prepare."
)
_REQUESTS = pytest.StashKey["dict[str, ServerRequest]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``llama_model`` of the configuration file."""
    parser.addini("llama_model", "the model of llama_server where no mark says another; default: the demo model")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", _MARK)
    config.stash[_REQUESTS] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize the fixture with the models in the mark of a test, its class or its module."""
    mark = metafunc.definition.get_closest_marker("llama_model")
    if mark is None or "llama_server" not in metafunc.fixturenames:
        return
    keywords = [_server_request(metafunc.config, model, mark.kwargs) for model in mark.args or (None,)]
    metafunc.parametrize("llama_server", keywords, indirect=True, ids=str, scope="session")


def _server_request(config: pytest.Config, model: object, options: Mapping[str, Any]) -> ServerRequest:
    """Return the same object for equal requests, so that pytest reuses the fixture."""
    from llama_runner.pytest_servers import ServerRequest  # noqa: PLC0415 - for tests that use it

    wanted = ServerRequest.of(model, options)
    return config.stash[_REQUESTS].setdefault(wanted.digest, wanted)


@pytest.fixture(scope="session")
def llama_root() -> str | Path | None:
    """The root for models and programs; override it. None: the default of ``llama-runner``."""
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
    """Return a client of a running server: ``chat``, ``complete``, ``embed``, ``url``, ``openai_base_url``, ….

    One server for each model, until the end of the session; the workers of pytest-xdist share it.
    """
    wanted = getattr(request, "param", None) or _server_request(
        request.config, request.config.getini("llama_model") or None, {}
    )
    return _llama_servers.client(wanted)
