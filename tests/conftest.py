"""What tests share: one root with the real llama.cpp built by our own pipeline, and roots that have its programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from importlib.util import LazyLoader, find_spec, module_from_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.command_server import CommandServer, do_not_sync, shared
from tests.fakehub.fixtures import certificate, hub, user_of_the_hub
from tests.shared_root import (
    REPOSITORY,
    Files,
    check_builds,
    files_of,
    link_builds,
    programs_of,
    root_of_the_run,
    shared_root,
)

__all__ = ["REPOSITORY", "certificate", "hub", "programs_of", "shared_root", "user_of_the_hub"]

MODULE = [sys.executable, "-m", "llama_runner"]


def pytest_configure() -> None:
    """Keep what the user has configured for their own servers out of the tests."""
    for name in [name for name in os.environ if name.startswith(("LLAMA_", "HF_"))]:
        if name not in KEPT:
            del os.environ[name]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each command would compile the package, which takes a second
    sys.dont_write_bytecode = False
    os.environ["LLAMA_RUNNER_NO_CHECK"] = "1"  # tests of it take it back
    _take_interrupts()
    _stay_on_one_core()
    _import_lazily()
    do_not_sync()
    # both would measure how loaded the machine is
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have two workers for each core: a quarter of the time a test waits for what it has started."""
    return 2 * len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def _take_interrupts() -> None:
    """Let Ctrl-C end what the tests start: a shell starts a command in the background with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stay_on_one_core() -> None:
    """Keep each worker of pytest-xdist, and all that it starts, on one core.

    llama.cpp's threads wait for each other by spinning. Two servers with two threads each on two cores spend nearly all
    of their time with that: tests that are done in one second take twenty.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw") and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})


def _import_lazily() -> None:
    """Import what takes seconds when a test uses it, not when its module is collected: each worker collects all."""
    for name in LAZY:
        spec = find_spec(name)
        if name not in sys.modules and spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
            sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])


LAZY = ("anthropic", "jsonschema", "langchain_ollama", "ollama", "openai")
"""Packages that tests import as ``import NAME``."""
KEPT = (
    *("LLAMA_RUNNER_TEST_ROOT", "LLAMA_RUNNER_TEST_ARTIFACTS", "LLAMA_RUNNER_TEST_PICTURES"),
    *("LLAMA_RUNNER_REFERENCE_PYTHON", "LLAMA_RUNNER_REFERENCE_TREE"),
)


@pytest.fixture(scope="session")
def binaries(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a root of this run where everything that the demo model needs is made, by the real pipeline."""
    base = tmp_path_factory.getbasetemp()
    root = root_of_the_run(base.parent if hasattr(request.config, "workerinput") else base)
    WATCHED.update({directory: files_of(directory) for directory in (root / "bins", shared_root() / "bins")})
    yield root
    check_builds(root)


WATCHED: dict[Path, Files] = {}
"""The programs that tests share, and what is there."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test after which the programs that tests share are others."""
    result = yield
    for directory, before in WATCHED.items():
        WATCHED[directory] = now = files_of(directory)
        changed = sorted({str(path) for path, _ in now.items() ^ before.items()})
        assert not changed, f"while {item.nodeid} ran, this changed, which all tests share: {changed}"
    return result


@pytest.fixture(scope="session")
def llama_root(binaries: Path) -> Path:
    """Let the fixture that comes with the package use the binaries that are built."""
    return binaries


@pytest.fixture
def root(tmp_path: Path, binaries: Path) -> Path:
    """Return a root of its own, with a space and an umlaut, that has the built programs and no models."""
    path = tmp_path / "a röot"
    link_builds(binaries, path)
    return path


NO_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""For a pytest in a process of its own: the plugins of all packages that are installed take more than a second."""


class Result:
    """A finished command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit status {self.code}\n{self.out}\n{self.err}"


Command = Callable[..., Result]


def says(result: Result, code: int, *texts: str) -> None:
    """Assert that a command failed with a status and one error (with ``--json`` an object), without a traceback."""
    assert result.code == code, result
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if line.startswith(("error:", "Error:", '{"error": '))]
    assert len(lines) == 1, result
    for text in texts:
        assert text in result.err, result


def on_a_free_port(words: list[str]) -> list[str]:
    """Return the words of a command with ``--port 0``, where it would serve at the usual port: that may be taken."""
    at = words.index("--") if "--" in words else len(words)
    if words[:1] != ["run"] or "--port" in words[:at]:
        return words
    return [*words[:at], "--port", "0", *words[at:]]


@pytest.fixture(scope="session")
def command_server() -> CommandServer | None:
    """Give what runs commands without a new interpreter, where there is one."""
    return shared()


@pytest.fixture
def llama_runner(tmp_path: Path, command_server: CommandServer | None) -> Command:
    """Return a function that runs the command line to its end, in an empty directory and on a free port."""
    directory = tmp_path / "cwd"
    directory.mkdir()

    def run(*arguments: object, env: dict[str, str] | None = None, **options: Any) -> Result:
        words, environment = on_a_free_port([*map(str, arguments)]), {**os.environ, **(env or {})}
        if command_server is not None and not options and command_server.takes(environment):
            done = command_server.run(words, environment, directory, 600)
            return Result(done.returncode, done.stdout, done.stderr)
        done = subprocess.run(
            [*MODULE, *words],
            check=False,
            capture_output=True,
            text=True,
            cwd=directory,
            env=environment,
            timeout=600,
            **options,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the stamps of files at once: no test can wait until a file is old, and no program can set a ctime."""
    monkeypatch.setattr("llama_runner.store.digest_cache.RACY_NS", 0)


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """Return an empty directory on another file system than the temporary directory of the test."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Return a function that makes a directory read-only, for root by a read-only mount."""

    def make(path: Path) -> None:
        if os.geteuid():
            for entry in [path, *path.rglob("*")]:
                if not entry.is_symlink() and entry.is_dir():
                    entry.chmod(0o555)
            return
        for words in (["--bind", str(path), str(path)], ["-o", "remount,bind,ro", str(path)]):
            if subprocess.run(["mount", *words], check=False, capture_output=True).returncode:
                pytest.skip("this user may write anywhere and may not mount")
        mounted.append(path)

    mounted: list[Path] = []
    yield make
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    """Give a list for processes that the test starts; what still runs at its end is killed."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate()
