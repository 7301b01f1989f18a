"""Fuzz target: config.json of small models of every architecture, through every reader of it."""

from __future__ import annotations

import ast
import json
import os
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import llama_runner.convert
from llama_runner.convert import convert, official_script, prepare_checkpoint
from llama_runner.convert.choose_converter import choose_converter
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.core.errors import LlamaRunnerError
from llama_runner.request.model_inspection import inspect
from llama_runner.sources.checkpoint_quantization import read_quantization
from llama_runner.sources.gguf_header import read_header
from tests.convert.official import FAMILIES, FIRST, cases_of
from tests.fuzz.harness import Case, Finding, Target, check_error, decoded, encoded, explore

SLOW_S = 5
"""CPU seconds after which a case is a finding, with the line that it was in."""
MEMORY = 512 << 20
"""Bytes by which a case may raise the greatest size of the process."""
MOST_TEXT = 1 << 20
"""Characters of a config.json; a longer one is cut."""
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 5, 7, 8, 16, 31, 32, 64, 128, 255, 4096, 65535, 65536, 10**6, 10**9, 2**31 - 1, 2**31),
    *(2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(2**31), -(2**63), 0.0, -0.0, 0.5, 1.0, 1.5, -1.5),
    *(1e-320, 1e-45, 1e38, 3.5e38, 1e39, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
)
TEXTS = ("", "x", "0", "1", "null", "true", "\x00", "\x1b[31mx", "x\nhint: y", "\ud800", "\u2028", "é", "a" * 7000)


@cache
def literals() -> tuple[str, ...]:
    """Every string of the converter's source that looks like a key or a name in config.json."""
    found: set[str] = set()
    for path in sorted(Path(llama_runner.convert.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node.value.replace("_", "a").isalnum()
            ):
                found.add(node.value)
    return tuple(sorted(found))


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="llama-runner-fuzz-models-")


@cache
def titles() -> tuple[str, ...]:
    """All tiny checkpoints of the conversion tests, as "group/case"."""
    return tuple(f"{group}/{name}" for group in (FIRST, *FAMILIES) for name in cases_of(group))


@cache
def built(title: str) -> Path:
    """The directory of a tiny checkpoint, built at the first call; nothing writes to it."""
    group, _, name = title.partition("/")
    folder = Path(_folder().name)
    directory = folder / group / name
    if not directory.is_dir():
        making = folder / f"making-{os.getpid()}"  # a worker may be killed while it builds
        shutil.rmtree(making, ignore_errors=True)
        cases_of(group)[name].build(making)
        directory.parent.mkdir(exist_ok=True)
        making.rename(directory)
    return directory


@cache
def original(title: str) -> dict[str, Any]:
    """The config.json of a tiny checkpoint."""
    document: dict[str, Any] = json.loads((built(title) / "config.json").read_text(encoding="utf-8"))
    return document


def value(rng: Random, depth: int = 2) -> Any:
    """Return any JSON value: most often a number, now and then a name that the converter knows."""
    how = rng.random()
    if how < 0.5:
        return rng.choice(NUMBERS) if rng.random() < 0.8 else rng.randint(-10, 300)
    if how < 0.6:
        return rng.choice((None, True, False))
    if how < 0.75 or not depth:
        return rng.choice(literals()) if rng.random() < 0.5 else rng.choice(TEXTS)
    if how < 0.85:
        return [value(rng, depth - 1)] * rng.choice((0, 1, 2, 3, 4, 16, 33, 200))
    if how < 0.95:
        return {_key(rng): value(rng, depth - 1) for _ in range(rng.randrange(4))}
    nested: Any = value(rng, 0)
    for _ in range(rng.choice((5, 200, 900))):
        nested = [nested] if rng.random() < 0.5 else {_key(rng): nested}
    return nested


def _key(rng: Random) -> str:
    return rng.choice(literals()) if rng.random() < 0.9 else rng.choice(TEXTS)


def edited(rng: Random, old: Any) -> Any:
    """Return a copy of a document in which one random place is changed, added or removed."""
    if isinstance(old, dict) and (old or rng.random() < 0.5) and rng.random() < 0.95:
        new = dict(old)
        how = rng.random()
        if how < 0.2 or not old:
            new[_key(rng)] = value(rng)
        elif how < 0.28:
            del new[rng.choice(list(old))]
        elif how < 0.34:
            new[rng.choice(list(old))] = old[rng.choice(list(old))]
        else:
            name = rng.choice(list(old))
            nested = isinstance(old[name], (dict, list)) and rng.random() < 0.75
            new[name] = edited(rng, old[name]) if nested else value(rng)
        return new
    if isinstance(old, list) and old and rng.random() < 0.9:
        at, items = rng.randrange(len(old)), list(old)
        how = rng.random()
        if how < 0.6:
            items[at] = edited(rng, old[at])
        elif how < 0.75:
            del items[at]
        elif how < 0.9:
            items.insert(at, value(rng))
        else:
            items *= rng.choice((2, 3, 100))
        return items
    return value(rng)


def generate(rng: Random) -> Case:
    """Make a config.json: that of a tiny model with one to four places changed, now and then damaged text."""
    title = rng.choice(titles())
    document: Any = original(title)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 4))):
        document = edited(rng, document)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.7)
    if len(text) > MOST_TEXT:
        text = text[: rng.randrange(MOST_TEXT)]
    if rng.random() < 0.03:
        at = rng.randrange(len(text) + 1)
        insert = rng.choice(("", "[" * 3000, "{", '"', "1e999", "9" * 5000, "\x00", "NaN"))
        text = text[:at] + insert + text[at + rng.randrange(6) :]
    return {"model": title, "config": decoded(text.encode("utf-8", "surrogatepass"))}


def check(case: Case, scratch: Path) -> None:
    """Read the model in every way that there is, and convert it; the last error goes through."""
    model = scratch / "model"
    model.mkdir()
    for path in built(case["model"]).iterdir():
        if path.name != "config.json":
            (model / path.name).symlink_to(path)
    (model / "config.json").write_bytes(encoded(case["config"]))
    with _bounded():
        for look in (_choose, _inspect, _describe):
            try:
                look(model)
            except LlamaRunnerError as error:
                check_error(error)
        _prepare(model)
        convert(model, scratch / "model.gguf", name="model")
        _check_context(read_header(scratch / "model.gguf").facts().get("context_length"))


def _choose(model: Path) -> None:
    source = ModelDirectory(model)
    read_quantization(source.config)
    choice = choose_converter(source)
    _check_context(choice.context_length)
    official_script.describe(model, choice)
    choose_converter(source, "official")


def _inspect(model: Path) -> None:
    json.dumps(inspect(model).to_json(), allow_nan=False)


def _describe(model: Path) -> None:
    _check_context(prepare_checkpoint.describe(model, vocabulary=False).context_length)


def _prepare(model: Path) -> None:
    prepared = prepare_checkpoint.prepare(model, name="model", outtype="f16")
    _check_context(prepared.checkpoint.context_length)


def _check_context(context: object) -> None:
    if context is not None and not (type(context) is int and 0 <= context < 1 << 32):
        raise Finding(f"{str(context)[:40]} is taken for a context length")


@contextmanager
def _bounded() -> Iterator[None]:
    """Raise ``Finding`` with a place for what takes too much processor time, or too much memory."""

    def stop(_number: int, frame: Any) -> None:
        places = [f"{Path(one.filename).name}:{one.lineno}" for one in traceback.extract_stack(frame)]
        raise Finding(f"slow: at {' > '.join(places[-3:])}")

    before, peak = signal.signal(signal.SIGPROF, stop), _peak()
    signal.setitimer(signal.ITIMER_PROF, SLOW_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        if _peak() > peak + MEMORY:
            raise Finding("takes too much memory")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


TARGET = Target("config_json", generate, check)


def run(seconds: float, seed: int, *, cases: int | None = None) -> dict[str, Any]:
    """Run the target; see `harness.explore`."""
    _folder()  # made here, so that all workers share it
    return explore(TARGET, seconds, seed, cases=cases)
