"""Checks before a start whether the memory that a server needs is available.

What it needs says ``llama-fit-params`` of the same build, once for the same model, binary and options: the answer is
kept, so that a later launch compares numbers only. What the process really took when it was ready is kept beside it
and counts from then on, if it is more. What is there is what the cgroup and each GPU have left.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.events import Noticed, Sink, Warned
from llama_runner.core.sizes import size_text
from llama_runner.serving.llama_server.memory_by_fit_params import (
    Need,
    Room,
    extrapolated,
    free_on_devices,
    lacking,
    larger,
    parse,
    question,
)
from llama_runner.system import hardware
from llama_runner.system.files import write_json
from llama_runner.system.platforms import page_bytes
from llama_runner.system.processes import try_output

if TYPE_CHECKING:
    from typing import TypeVar

    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.serving.llama_server.memory_by_fit_params import Question
    from llama_runner.serving.running_server import RunningServer
    from llama_runner.serving.server_process import Server

    _Running = TypeVar("_Running", bound=Server | RunningServer)

_SCHEME = "memory 1"
_TIMEOUT_S = 120.0
_FAR = 1 << 20
"""Tokens of context up to which llama-fit-params is asked; beyond, its answers are extrapolated."""
_KEPT = 200
"""Answers that are kept; older ones are removed."""
_SAME = 0.02
"""A footprint is written down anew if it differs by more than this part."""

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")


class Memory:
    """The memory of one launch: checked before it, its footprint kept after it.

    ``kept`` is the directory of what is known, one small file for a model, a build and options.
    """

    def __init__(self, spec: ServerSpec, kept: Path, sink: Sink) -> None:
        self.spec, self._sink = spec, sink
        self._program = spec.binary.with_name(f"llama-fit-params{spec.binary.suffix}")
        self._environment = spec.environment(os.environ)
        self.question = question(spec, self._environment)
        self._answers: dict[Question, Need | None] = {}
        key = self._key()
        self._file = None if key is None else kept / f"{key}.json"

    def check(self, freed: int | None = None) -> None:
        """Raise ``DoesNotFit`` unless what the server needs is available; with ``force_memory`` only tell.

        Where it cannot be known, as there is no llama-fit-params or it fails, the launch goes on. ``freed`` has the
        bytes of a server that will be ended before; GPUs are not looked at then, as it may hold what is needed there.
        """
        anew = self.known()[0] is None
        need, missing = self.estimate()
        if need is None:
            return
        room = self.room(need) if freed is None else Room(hardware.available_memory() + freed)
        lacks = lacking(need, room, spills=self.question.spills)
        if not lacks:
            if anew:
                self._tell_of_prompts(room.host - need.on_host)
            return
        from llama_runner.serving.llama_server.memory_suggestions import refusal  # noqa: PLC0415 - only for what does not fit

        error = refusal(self.spec, self.question, lambda asked: self.ask(asked, quietly=True), need, room, missing)
        if error is not None and not self.spec.force_memory:
            raise error
        if error is not None:
            self._sink(Warned("memory", str(error)))

    def estimate(self) -> tuple[Need | None, int]:
        """Return what the server needs, and how much of that only measuring showed; None where it is unknown."""
        need, measured = self.known()
        if need is None:
            need = self.ask(self.question)
            self._keep(need, measured)
        if need is None:
            return None, 0
        missing = max(0, measured - need.on_host)
        return need.replace(beside=need.beside + missing), missing

    def _tell_of_prompts(self, left: int) -> None:
        """Tell, once, where the cache of prompts would fill more than what is left. It is empty at the start."""
        limit = self.question.prompts
        if limit and (limit < 0 or limit > left):
            what = "without a limit" if limit < 0 else f"in up to {size_text(limit)}"
            text = f"llama-server keeps prompts {what} of memory as they come, {size_text(left)} will be left"
            self._sink(Noticed("prompt_cache", f"{text}; -- --cache-ram {left // 2 >> 20} lets it have half of it"))

    def remember(self, running: _Running) -> _Running:
        """Keep what a server that is ready takes of the host's memory, and return the server."""
        resident = resident_bytes(running.pid)
        need, before = self.known()
        if need is not None and resident and abs(resident - before) > _SAME * resident:
            self._keep(need, resident)
        return running

    def ask(self, asked: Question, *, quietly: bool = False) -> Need | None:
        """Return what llama-fit-params says; None where it says nothing, which is told unless ``quietly``.

        About a context of millions of tokens it is not asked, as that takes it minutes.
        """
        if asked not in self._answers:
            context = int(asked.ctx_size) if asked.ctx_size.isdigit() else 0
            if context > _FAR:
                near = self.ask(asked.replace(ctx_size=str(_FAR // 2)), quietly=quietly)
                far = near and self.ask(asked.replace(ctx_size=str(_FAR)), quietly=quietly)
                self._answers[asked] = near and far and extrapolated(near, far, context * 2 / _FAR - 1)
            else:
                self._answers[asked] = self._ask(asked, quietly=quietly)
        return self._answers[asked]

    def _ask(self, asked: Question, *, quietly: bool) -> Need | None:
        answers: list[Need] = []
        weights = sum(_bytes_of(file) for file in files_of(self.spec.model))
        for words in asked.argvs() if self._file is not None else []:
            said = self._say("-m", str(self.spec.model), *words)
            if (need := parse(said, weights)) is not None:
                answers.append(need)
        if self._file is None or len(answers) < len(asked.argvs()):
            why = "says nothing of this model with these options" if _bytes_of(self._program) else "is not there"
            if not quietly:
                self._sink(Noticed("no_memory_check", f"memory is not checked: {self._program} {why}"))
            return None
        beside = [self.spec.projector, None if asked.draft is None else Path(asked.draft)]
        return larger(answers).replace(beside=sum(_bytes_of(file) for file in beside if file is not None))

    def _say(self, *words: str) -> str:
        """Return the output of llama-fit-params; empty if it fails."""
        return try_output([self._program, *words], env=self._environment, timeout=_TIMEOUT_S) or ""

    def room(self, need: Need) -> Room:
        """Return what is available now; GPUs are asked only if some of the need is there."""
        return Room(hardware.available_memory(), free_on_devices(self._say("--list-devices")) if need.devices else ())

    def _key(self) -> str | None:
        """Return a hash of the model, the build and the options that decide about memory."""
        from llama_runner.core.short_sha256 import sha256  # noqa: PLC0415 - not for plan

        try:
            files = [_identity(path) for path in (self._program, self.spec.model)]
        except OSError:
            return None
        told = [f"{name}={value}" for name, value in sorted(self._environment.items()) if name in _VISIBLE]
        told += [
            f"{name}={value}" for name, value in sorted(self._environment.items()) if name.startswith("LLAMA_ARG_")
        ]
        asked = [str(item) for item in self.question.__dict__.values()]
        what = json.dumps([_SCHEME, files, asked, str(self.spec.projector), told])
        return sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:24]

    def known(self) -> tuple[Need | None, int]:
        """Return the need and the footprint that are written down; a damaged file is none."""
        try:
            with open(self._file or "", encoding="utf-8") as file:  # noqa: PTH123 - faster
                kept = json.load(file)
            need = Need(tuple(tuple(row) for row in kept["devices"]), tuple(kept["host"]), kept["beside"])
            need.on_host + sum(need.on_devices.values()) + kept["resident"]
            return need, int(kept["resident"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None, 0

    def _keep(self, need: Need | None, resident: int) -> None:
        if need is None or self._file is None:
            return
        with suppress(OSError):  # a root that cannot be written to is asked again each time
            write_json(self._file, {**need.__dict__, "resident": resident, "model": str(self.spec.model)})
            known = sorted(self._file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for old in known[:-_KEPT]:
                old.unlink(missing_ok=True)


def host_bytes(spec: ServerSpec, kept: Path, sink: Sink) -> tuple[int, int] | None:
    """Return the bytes of the host that a server takes, and those that its cache of prompts may take besides.

    Less than 0: without a limit. None where it cannot be known: there is no llama-fit-params, or it fails.
    """
    memory = Memory(spec, kept, sink)
    need, measured = memory.known()
    if need is None and (need := memory.ask(memory.question, quietly=True)) is None:
        return None
    return max(need.on_host, measured), memory.question.prompts


def resident_bytes(pid: int) -> int:
    """Return how much of the host's memory a process has, mapped files included; 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - faster
            return int(file.read().split()[1]) * page_bytes()
    except (OSError, ValueError, IndexError):
        return 0


def private_bytes(pid: int) -> int:
    """Return how much of the host's memory becomes free when a process ends: mapped files count as free already."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - faster
            resident, shared = map(int, file.read().split()[1:3])
        return (resident - shared) * page_bytes()
    except (OSError, ValueError):
        return 0


def files_of(model: Path) -> list[Path]:
    """Return the files of a model, of which the first is given."""
    match = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", model.name)
    if match is None:
        return [model]
    return [model.with_name(f"{match[1]}-{number:05}-of-{match[2]}.gguf") for number in range(1, int(match[2]) + 1)]


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _identity(path: Path) -> list[Any]:
    about = path.stat()
    return [str(path), about.st_size, about.st_mtime_ns]
