"""Errors of the smoke test, and the file that remembers rejected builds."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.errors import StepError
from llama_runner.store.layout import rejected_builds
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_REMEMBERED = 100

_ILLEGAL = {-4, 132, 0xC000001D}
"""SIGILL; as a shell in between says it; as Windows does."""
_NO_LIBRARY = 0xC0000135
"""Windows: a library is missing; the system does not name it."""
_NOT_STARTED = (126, 127)
"""What those say who should have become the program, and could not."""

_LOADER = re.compile(
    r"error while loading shared libraries: ([^:\s]+)"  # glibc
    r"|Error loading shared library ([^:\s]+)"  # musl
    r"|Library not loaded: (\S+)"  # macOS
)
_TOO_OLD = re.compile(r"version [`'](\S+?)' not found \(required by")
_NOT_EXECUTED = re.compile(r"(?:failed to execute|sh: (?:\d+: |line \d+: )?exec:) .*: ([^:]+)$")

_PACKAGES = {
    "libgomp": "sudo apt-get install -y libgomp1   (Fedora: sudo dnf install libgomp)",
    "libcurl": "sudo apt-get install -y libcurl4   (Fedora: sudo dnf install libcurl)",
    "libssl": "sudo apt-get install -y libssl3   (Fedora: sudo dnf install openssl-libs)",
    "libcrypto": "sudo apt-get install -y libssl3   (Fedora: sudo dnf install openssl-libs)",
    "libvulkan": "sudo apt-get install -y libvulkan1   (Fedora: sudo dnf install vulkan-loader)",
    "libopenblas": "sudo apt-get install -y libopenblas0   (Fedora: sudo dnf install openblas-libs)",
    "libstdc++": "sudo apt-get install -y libstdc++6   (Fedora: sudo dnf install libstdc++)",
    "libcuda": "install NVIDIA's driver; in a container, start it with the GPU (--gpus all)",
    "libcudart": "install the CUDA runtime (Debian: sudo apt-get install -y nvidia-cuda-toolkit)",
    "libcublas": "install the CUDA runtime (Debian: sudo apt-get install -y nvidia-cuda-toolkit)",
}
"""How to get the libraries that builds of llama.cpp lack most often."""


class Rejected(StepError):
    """The programs failed the smoke test; nothing of them is kept. ``cause`` describes the failure."""

    cause: ClassVar[str]


class IllegalInstruction(Rejected):
    """A program uses instructions that this processor lacks."""

    cause = "illegal instruction"

    def __init__(self, program: str, log: str) -> None:
        self.program, self.log = program, log
        super().__init__(
            f"{program} was ended by an illegal instruction: it was built for another processor\nfull log: {log}",
            hint="build it here, or take --backend cpu-portable",
        )


class MissingLibrary(Rejected):
    """A library of a program is missing or too old. ``library`` is None if the system does not name it."""

    cause = "missing library"

    def __init__(self, program: str, library: str | None, log: str, *, newer: bool = False) -> None:
        self.program, self.library, self.log, self.newer = program, library, log, newer
        name = os.path.basename(library or "")  # noqa: PTH119 - macOS says the whole path
        known = next((way for start, way in _PACKAGES.items() if re.match(rf"{re.escape(start)}[-.\d]", name)), None)
        other = "it was made for a newer system: build it here" if newer else "install it, or build it here"
        super().__init__(
            f"{program} needs {library or 'a library'}, which this system does not have\nfull log: {log}",
            hint=known or other,
        )


class WrongVersion(Rejected):
    """A program is another version than was asked for."""

    cause = "wrong version"

    def __init__(self, program: str, expected: str, said: str) -> None:
        self.program, self.expected, self.said = program, expected, said
        super().__init__(f"{program} is {said or 'nothing that it would say'}, not {expected}")


class NoDevice(Rejected):
    """A backend finds nothing on this machine that it could compute with."""

    cause = "no device"

    def __init__(self, backend: str, devices: Sequence[str], log: str) -> None:
        self.backend, self.devices, self.log = backend, tuple(devices), log
        found = f"only {', '.join(devices)}" if devices else "none"
        super().__init__(
            f"llama-server finds no device for {backend} here ({found})\nfull log: {log}",
            hint="is its driver installed, and may you use it (groups render, video; in a container, the GPU passed "
            "on)? --backend cpu needs none",
        )


class AnotherArchitecture(Rejected):
    """A program is for another system or another processor."""

    cause = "another architecture"

    def __init__(self, program: str, found: Sequence[str], wanted: str) -> None:
        self.program, self.found, self.wanted = program, tuple(found), wanted
        super().__init__(f"{program} is for {' and '.join(found)}, not for {wanted}", hint=f"get the one for {wanted}")


class CannotRun(Rejected):
    """The system does not start a program."""

    cause = "cannot run"

    def __init__(self, program: str, why: str) -> None:
        self.program, self.why = program, why
        super().__init__(f"{program} cannot be run: {why}")


class Fake(Rejected):
    """A program that does not behave as its name promises: its output is empty or incomplete."""

    cause = "not llama.cpp"

    def __init__(self, program: str, what: str, log: str) -> None:
        self.program, self.what, self.log = program, what, log
        super().__init__(f"{program} {what}\nfull log: {log}", hint="is it llama.cpp's own?")


class Crashed(Rejected):
    """A program ended with an error where it should have answered, or served."""

    cause = "crashed"

    def __init__(self, program: str, doing: str, status: int, tail: Sequence[str], log: str) -> None:
        self.program, self.doing, self.status, self.tail, self.log = program, doing, status, tuple(tail), log
        how = f"exited with {status}" if status >= 0 else f"was killed by signal {-status}"
        super().__init__(f"{program} {how} {doing}{_indented(tail)}\nfull log: {log}")


class NotReady(Rejected):
    """A program was neither done nor at an end after a time in which any would be."""

    cause = "not ready"

    def __init__(self, program: str, doing: str, seconds: float, tail: Sequence[str], log: str) -> None:
        self.program, self.doing, self.seconds, self.tail, self.log = program, doing, seconds, tuple(tail), log
        super().__init__(f"{program} was not done {doing} after {seconds:g} s{_indented(tail)}\nfull log: {log}")


class WrongSentence(Rejected):
    """The demo model gives another answer than the trained one: the programs compute wrongly."""

    cause = "wrong sentence"

    def __init__(self, expected: str, said: str | None, log: str) -> None:
        self.expected, self.said, self.log = expected, said, log
        answer = "nothing" if said is None else repr(said)
        super().__init__(f"the demo model says {answer}, not {expected!r}\nfull log: {log}")


def rejection(program: str, doing: str, status: int, tail: Sequence[str], log: str) -> Rejected:
    """Return why a program that ended with ``status`` (negative: a signal), and said ``tail`` last, is not taken."""
    if status in _ILLEGAL:
        return IllegalInstruction(program, log)
    for line in tail:
        if missing := _LOADER.search(line):
            return MissingLibrary(program, next(filter(None, missing.groups())), log)
        if wanted := _TOO_OLD.search(line):
            return MissingLibrary(program, wanted[1], log, newer=True)
        if status in _NOT_STARTED and (why := _NOT_EXECUTED.search(line)):
            said = why[1].lower()  # a shell says "not found"
            return CannotRun(program, "no such file or directory" if said.endswith("not found") else said)
    if status == _NO_LIBRARY:
        return MissingLibrary(program, None, log)
    return Crashed(program, doing, status, tail, log)


def remember_rejection(private: Path, key: str, reason: str) -> None:
    """Write down below the store's own directory that what has this key was not taken, and why.

    If it cannot be written, the next run tests the build again.
    """
    _write(private, {**rejected(private), key: reason})


def forget_rejection(private: Path, key: str) -> None:
    """Remove the entry of a build that was accepted since."""
    _write(private, {name: reason for name, reason in rejected(private).items() if name != key})


def _write(private: Path, known: Mapping[str, str]) -> None:
    last = dict(list(known.items())[-_REMEMBERED:])
    with suppress(OSError):
        write_json(rejected_builds(private), last, indent=1)


def rejected(private: Path) -> Mapping[str, str]:
    """Return the reasons of what was not taken by its key, the latest last; a damaged file is none."""
    try:
        found = read_json(rejected_builds(private))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: reason for key, reason in found.items() if isinstance(reason, str)}


def _indented(tail: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in tail)
