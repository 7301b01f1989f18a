"""Runs the cases of a fuzz target in a worker process with limits on memory and time, and reports findings.

Case number n is made by ``generate(Random("<seed>/<n>"))`` alone, so a target, a seed and a number reproduce it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from llama_runner.core.errors import LlamaRunnerError

Case = dict[str, Any]
"""One input, as JSON. Bytes are text decoded as UTF-8 with surrogateescape; see ``encoded``."""

SLOW_S = 5.0
"""CPU seconds for one case; more is a finding."""
HANG_S = 60.0
"""Seconds for one case before the worker is killed."""
MEMORY = 1 << 30
"""Bytes that a worker may take in addition to what it has at its start."""
MOST_FINDINGS = 40
"""Distinct findings after which a target stops."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
_LABEL = re.compile(r"^(?:hint|error|warning):", re.MULTILINE | re.IGNORECASE)


class Finding(Exception):
    """An outcome that is neither success nor a typed error."""


class Target(NamedTuple):
    """``generate`` makes a case; ``check`` runs it in an empty directory and raises unless the outcome is expected."""

    name: str
    generate: Callable[[Random], Case]
    check: Callable[[Case, Path], None]


def decoded(content: bytes) -> str:
    """Return bytes as they stand in a case."""
    return content.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """Return the bytes of a text of a case; lone surrogates that stand for no byte are kept."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def check_text(text: str, *, labels: int = 0) -> None:
    """Raise ``Finding`` where a text for people has a control character, or more lines than ``labels`` like "hint:"."""
    if found := _CONTROL.search(text):
        raise Finding(f"control character {found[0]!r} in a text for people")
    if len(_LABEL.findall(text)) > labels:
        raise Finding("a forged line in a text for people")


def check_error(error: LlamaRunnerError) -> None:
    """Raise ``Finding`` where an error's text is not safe to show."""
    for text in (str(error), error.hint or ""):
        check_text(text)
        text.encode("utf-8")


def outcome_of(target: Target, case: Case) -> tuple[str, str]:
    """Run one case here and return ("accepted" | "refused" | "finding", what)."""
    scratch = Path(tempfile.mkdtemp(prefix="llama-runner-fuzz-"))
    began = time.process_time()
    try:
        target.check(case, scratch)
        word, what = "accepted", ""
    except LlamaRunnerError as error:
        word, what = "refused", ""
        try:
            check_error(error)
        except (Finding, UnicodeEncodeError) as found:
            word, what = "finding", f"{type(error).__name__}: {found}"
    except Finding as found:
        word, what = "finding", str(found)
    except BaseException as error:  # noqa: BLE001 - any other exception is what is looked for
        word, what = "finding", f"{type(error).__name__} at {_place(error)}: {str(error)[:200]!r}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    spent = time.process_time() - began
    if spent > SLOW_S and word != "finding":
        word, what = "finding", f"slow: {spent:.1f} s of CPU time"
    return word, what


def _place(error: BaseException) -> str:
    """Return the innermost frame in our own package, then the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/llama_runner/" in frame.filename]
    return " via ".join(dict.fromkeys(f"{Path(f.filename).name}:{f.lineno}" for f in (*frames[-1:], *ours[-1:])))


def _signature(what: str) -> str:
    return re.sub(r"(: ['\"]).*|[0-9.]+ s of.*|'.*'", "", what)


def explore(target: Target, seconds: float, seed: int, *, cases: int | None = None) -> dict[str, Any]:
    """Run cases for so many seconds, or so many cases, and return counts and distinct findings."""
    end = time.monotonic() + seconds
    counts = {"cases": 0, "accepted": 0, "refused": 0}
    findings: dict[str, dict[str, Any]] = {}
    number = 0
    while time.monotonic() < end and (cases is None or number < cases) and len(findings) < MOST_FINDINGS:
        number = _one_worker(target, seed, number, end, cases, counts, findings)
    return {**counts, "findings": list(findings.values())}


def _one_worker(
    target: Target,
    seed: int,
    first: int,
    end: float,
    cases: int | None,
    counts: dict[str, int],
    findings: dict[str, dict[str, Any]],
) -> int:
    """Run cases in one process from ``first`` on; return the number of the next case."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _work(target, seed, first, end, cases, writing)
    os.close(writing)
    number, done = first, False

    def note(word: str, what: str) -> None:
        counts["cases"] += 1
        counts[word] = counts.get(word, 0) + 1
        if word != "finding":
            return
        entry = findings.setdefault(
            _signature(what),
            {"what": what, "seed": seed, "case": number, "times": 0, "input": target.generate(_random(seed, number))},
        )
        entry["times"] += 1

    with os.fdopen(reading, "rb", buffering=0) as messages:
        rest = b""
        while not done:
            ready, _, _ = select.select([messages], [], [], HANG_S)
            block = messages.read(1 << 16) if ready else b""
            *lines, rest = (rest + (block or b"")).split(b"\n")
            for line in lines:
                note(*json.loads(line))
                number += 1
            if not ready:
                os.kill(pid, signal.SIGKILL)
                note("finding", f"hangs: no end within {HANG_S:.0f} s")
                number, done = number + 1, True
            elif not block:
                done = True
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        note("finding", f"the process was killed by signal {os.WTERMSIG(status)}")
        number += 1
    return number


def _random(seed: int, number: int) -> Random:
    return Random(f"{seed}/{number}")


def _work(target: Target, seed: int, first: int, end: float, cases: int | None, writing: int) -> None:
    """Run cases until the time is over; the process ends here."""
    status = 1
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        printed = tempfile.TemporaryFile()  # noqa: SIM115 - open until the process ends
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        number = first
        while time.monotonic() < end and (cases is None or number < cases):
            outcome = outcome_of(target, target.generate(_random(seed, number)))
            if size := os.fstat(1).st_size:
                outcome = ("finding", f"the library prints: {os.pread(1, min(size, 200), 0)!r}")
                os.ftruncate(1, 0)
                os.lseek(1, 0, os.SEEK_SET)
            os.write(writing, json.dumps(outcome).encode() + b"\n")
            number += 1
        status = 0
    except BaseException as error:  # noqa: BLE001 - a child of a fork must not return
        os.write(
            writing,
            json.dumps(("finding", f"the worker failed: {type(error).__name__} at {_place(error)}")).encode() + b"\n",
        )
    finally:
        os._exit(status)


def keep(directory: Path, target: str, findings: list[dict[str, Any]]) -> list[Path]:
    """Write the input of each finding below ``directory``; return the files."""
    written = []
    for finding in findings:
        text = json.dumps(finding.get("input"), indent=1, sort_keys=True) + "\n"
        path = directory / target / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def replay(target: Target, path: Path) -> None:
    """Run a case that was kept; raise ``Finding`` where its outcome is not what is expected."""
    word, what = outcome_of(target, json.loads(path.read_text(encoding="utf-8")))
    if word == "finding":
        raise Finding(what)


@contextlib.contextmanager
def overlaid(base: Path, files: dict[str, str]) -> Iterator[Path]:
    """Replace files in a directory for the duration of a case."""
    before: dict[Path, bytes | None] = {}
    made: list[Path] = []
    try:
        for name, text in files.items():
            path = base / name
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
                made.append(path.parent)
            before[path] = path.read_bytes() if path.is_file() else None
            path.write_bytes(encoded(text))
        yield base
    finally:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        for directory in made:
            shutil.rmtree(directory, ignore_errors=True)
