"""Every error survives being pickled and copied, as multiprocessing and concurrent.futures do with it."""

from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
from pathlib import Path

import pytest

import llama_runner
from llama_runner.core.errors import LlamaRunnerError
from llama_runner.engine.errors import ProgramFailed


def error_classes() -> list[type[LlamaRunnerError]]:
    """Return every error class of the package; the modules that are programs of their own are left out."""
    for module in pkgutil.walk_packages(llama_runner.__path__, "llama_runner."):
        if not module.name.endswith(("__main__", "official_driver", "pytest_plugin", "pytest_servers")):
            importlib.import_module(module.name)
    found, pending = [], [LlamaRunnerError]
    while pending:
        kind = pending.pop()
        found.append(kind)
        pending += kind.__subclasses__()
    return sorted((kind for kind in found if kind.__module__.startswith("llama_runner.")), key=str)


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_11_27_every_error_pickles(kind: type[LlamaRunnerError]) -> None:
    error = kind.__new__(kind)  # each constructor takes other facts
    LlamaRunnerError.__init__(error, "the text", hint="the hint")
    error.__dict__.update(path=Path("a"), names=["b"])
    error.__cause__ = None
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert (str(twin), twin.__dict__, twin.code) == (str(error), error.__dict__, error.code)


def fail(number: int) -> None:
    raise ProgramFailed("program", number, ["the last line"], "logs/x.log")


def test_11_27_an_error_comes_back_from_a_pool() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(ProgramFailed, match="the last line"):
        pool.apply_async(fail, (3,)).get(timeout=60)


def test_error_constructors_take_more_than_the_text() -> None:
    assert any(len(inspect.signature(kind.__init__).parameters) > 3 for kind in error_classes())


def test_11_11_the_text_of_an_error_has_no_control_characters_and_no_forged_lines() -> None:
    error = LlamaRunnerError("no \x1b[31mx\r\nhint: run \udcff\n  the tail\nfull log: a", hint="try \x9b\nerror: b")
    assert str(error) == "no \\x1b[31mx\\r\n  hint: run \\udcff\n  the tail\nfull log: a"
    assert error.hint == "try \\x9b\n  error: b"
