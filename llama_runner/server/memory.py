"""Whether the memory that a server will need is there, asked before it is started.

What it needs says ``llama-fit-params`` of the same build, once for the same model, binary and options: the answer is
kept, so that a later launch compares numbers only. What the process really took when it was ready is kept beside it
and counts from then on, if it is more. What is there is what the cgroup and each GPU have left.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from llama_runner import machine
from llama_runner.core.events import Noticed, Sink, Warned
from llama_runner.core.value import Value

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.server.elsewhere import RunningServer
    from llama_runner.server.process import Server
    from llama_runner.server.spec import ServerSpec

_Running = TypeVar("_Running", bound="Server | RunningServer")

HOST = "Host"
_MIB = 1 << 20
_SCHEME = "memory 1"
_TIMEOUT_S = 120.0
_SLOTS = 4
"""How many sequences llama-server serves at once, unless told otherwise; they share one KV cache then."""
_SAME = 0.02
"""A footprint is written down anew if it differs by more than this part."""

_TAKES_VALUE = {
    "-b": "--batch-size", "-ub": "--ubatch-size", "-fa": "--flash-attn", "-ot": "--override-tensor",
    "-ncmoe": "--n-cpu-moe", "-dev": "--device", "-sm": "--split-mode", "-ts": "--tensor-split", "-mg": "--main-gpu",
    "-lm": "--load-mode", "--override-kv": "--override-kv", "--control-vector": "--control-vector",
}  # fmt: skip
_TAKES_NONE = {
    "--swa-full": "--swa-full", "-kvo": "--kv-offload", "-nkvo": "--no-kv-offload", "-nr": "--no-repack",
    "--repack": "--repack", "--no-host": "--no-host", "-cmoe": "--cpu-moe", "--mmap": "--mmap",
    "--no-mmap": "--no-mmap", "--mlock": "--mlock", "-dio": "--direct-io", "-ndio": "--no-direct-io",
    "--op-offload": "--op-offload", "--no-op-offload": "--no-op-offload",
}  # fmt: skip
_OURS = {
    "-c": "ctx_size", "--ctx-size": "ctx_size", "-np": "slots", "--parallel": "slots",
    "-ngl": "gpu_layers", "--gpu-layers": "gpu_layers", "--n-gpu-layers": "gpu_layers",
    "-ctk": "type_k", "--cache-type-k": "type_k", "-ctv": "type_v", "--cache-type-v": "type_v",
    "-fit": "fit", "--fit": "fit", "-md": "draft", "--model-draft": "draft", "--spec-draft-model": "draft",
}  # fmt: skip
"""Options of llama-server that decide about memory: passed on, or understood here."""

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")


class Question(Value):
    """What llama-fit-params is asked: what a server's options say about memory."""

    ctx_size: str = "0"
    """Tokens; 0: what the model was trained for."""
    gpu_layers: str | None = None
    type_k: str | None = None
    type_v: str | None = None
    slots: str | None = None
    unified: bool = False
    """Whether slots share one KV cache although their number is given."""
    fit: str = "on"
    draft: str | None = None
    rest: tuple[str, ...] = ()

    @property
    def spills(self) -> bool:
        """Whether llama-server itself moves layers that a GPU has no room for to the host."""
        chosen = {"--tensor-split", "--override-tensor"} & set(self.rest)
        return self.fit != "off" and self.gpu_layers in (None, "auto", "-1") and not chosen

    def argvs(self) -> list[list[str]]:
        """Return the arguments of each call; the larger answer counts.

        llama-fit-params has no ``--kv-unified``. Slots that share one KV cache need the work space of one sequence
        that has all of it, and the states, as recurrent models have them, of all.
        """
        words = ["-fitp", "on", "-c", self.ctx_size]
        named = (("-ngl", self.gpu_layers), ("-ctk", self.type_k), ("-ctv", self.type_v))
        for option, value in named:
            words += [] if value is None else [option, value]
        words += self.rest
        slots = self.slots if self.slots not in (None, "-1") else str(_SLOTS)
        if slots == self.slots and not self.unified:
            return [[*words, "-np", slots]]
        return [[*words, "-np", "1"], [*words, "-np", str(slots)]]


def question(spec: ServerSpec) -> Question:
    """Return what to ask about a server. Pure."""
    fields: dict[str, Any] = {}
    if spec.ctx_size is not None:
        fields["ctx_size"] = str(spec.ctx_size)
    if spec.gpu_layers is not None:
        fields["gpu_layers"] = str(spec.gpu_layers)
    rest: list[str] = []
    for adapter in spec.adapters:
        rest += ["--lora", str(adapter)]
    words = iter(spec.extra)
    for word in words:
        option = word.replace("_", "-") if word.startswith("--") else word
        if option in _OURS:
            fields[_OURS[option]] = next(words, "")
        elif option in ("-kvu", "--kv-unified"):
            fields["unified"] = True
        elif option in _TAKES_VALUE or option in _TAKES_VALUE.values():
            rest += [_TAKES_VALUE.get(option, option), next(words, "")]
        elif option in _TAKES_NONE or option in _TAKES_NONE.values():
            rest.append(_TAKES_NONE.get(option, option))
    return Question(**fields, rest=tuple(rest))


class Need(Value):
    """Bytes that a server needs, by place: ``(name, model, context, compute)``."""

    devices: tuple[tuple[str, int, int, int], ...]
    """The GPUs."""
    host: tuple[int, int, int]
    beside: int = 0
    """What else is on the host: the projector, a draft model, and what was found to be missing in the estimate."""

    @property
    def on_host(self) -> int:
        """Bytes of the host's memory."""
        return sum(self.host) + self.beside

    @property
    def on_devices(self) -> dict[str, int]:
        """Bytes of each GPU's."""
        return {name: sum(parts) for name, *parts in self.devices}

    @property
    def parts(self) -> dict[str, int]:
        """Bytes for each purpose, wherever they are."""
        rows = [self.host, *(device[1:] for device in self.devices)]
        sums = (sum(row[at] for row in rows) for at in range(3))
        return {**dict(zip(("model", "context", "compute"), sums, strict=True)), "beside": self.beside}

    @property
    def weights(self) -> int:
        """Bytes of the model, wherever they are."""
        return self.parts["model"]


class Room(Value):
    """Bytes that are available."""

    host: int
    devices: tuple[tuple[str, int], ...] = ()
    """What is free on each GPU that says so."""


def lacking(need: Need, room: Room, *, spills: bool) -> tuple[tuple[str, int, int], ...]:
    """Return the places where a server does not fit: name, bytes needed, bytes available. Pure.

    With ``spills``, what a GPU has no room for goes to the host.
    """
    free = dict(room.devices)
    over = {name: wanted for name, wanted in need.on_devices.items() if wanted > free.get(name, wanted)}
    host = need.on_host
    if spills:
        host += sum(wanted - free[name] for name, wanted in over.items())
        over = {}
    found = [(name, wanted, free[name]) for name, wanted in over.items()]
    if host > room.host:
        found.append((HOST, host, room.host))
    return tuple(found)


def parse(said: str, weights: int) -> Need | None:
    """Return what llama-fit-params said: a line per device, ``NAME model context compute``, whole MiB, rounded down.

    ``weights`` is the bytes of the model's files. What of them is on no GPU is on the host: llama-fit-params leaves
    out weights that are rearranged for the processor. Half a MiB is added to the other numbers, as rounding took away
    that much on average.
    """
    lines = [match for line in said.splitlines() if (match := re.fullmatch(r"(.+?) (\d+) (\d+) (\d+)\s*", line))]
    if not lines or lines[-1][1] != HOST:
        return None
    half = _MIB // 2
    rows = [(line[1], int(line[2]) * _MIB, int(line[3]) * _MIB, int(line[4]) * _MIB) for line in lines]
    devices = tuple((name, a, b + half * (b > 0), c + half) for name, a, b, c in rows[:-1])
    _, model, context, compute = rows[-1]
    model = max(model, weights - sum(device[1] for device in devices))
    return Need(devices, (model, context + half * (context > 0), compute + half))


def larger(needs: list[Need]) -> Need:
    """Return the larger of the numbers of two answers about the same model and devices."""
    first, *others = needs
    for other in others:
        pairs = zip(first.devices, other.devices, strict=True)
        devices = tuple((a[0], max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])) for a, b in pairs)
        host = tuple(max(pair) for pair in zip(first.host, other.host, strict=True))
        first = Need(devices, (host[0], host[1], host[2]), first.beside)
    return first


class Memory:
    """The memory of one launch: checked before it, its footprint kept after it.

    ``kept`` is the directory of what is known, one small file for a model, a build and options.
    """

    def __init__(self, spec: ServerSpec, kept: Path, sink: Sink) -> None:
        self.spec, self._sink = spec, sink
        self._program = spec.binary.with_name(f"llama-fit-params{spec.binary.suffix}")
        self._environment = spec.environment(os.environ)
        self.question = question(spec)
        key = self._key()
        self._file = None if key is None else kept / f"{key}.json"

    def check(self) -> None:
        """Raise ``DoesNotFit`` unless what the server needs is available; with ``force_memory`` only tell.

        Where it cannot be known, as there is no llama-fit-params or it fails, the launch goes on.
        """
        need, measured = self._known()
        if need is None:
            need = self.ask(self.question)
            self._keep(need, measured)
        if need is None:
            return
        missing = max(0, measured - need.on_host)
        need = need.but(beside=need.beside + missing)
        lacks = lacking(need, room := self.room(need), spills=self.question.spills)
        if not lacks:
            return
        from llama_runner.server.smaller import refusal  # noqa: PLC0415 - only for what does not fit

        error = refusal(self, need, room, missing)
        if error is not None and not self.spec.force_memory:
            raise error
        if error is not None:
            self._sink(Warned("memory", str(error)))

    def remember(self, running: _Running) -> _Running:
        """Keep what a server that is ready takes of the host's memory, and return the server."""
        resident = resident_bytes(running.pid)
        need, before = self._known()
        if need is not None and resident and abs(resident - before) > _SAME * resident:
            self._keep(need, resident)
        return running

    def ask(self, asked: Question, *, quietly: bool = False) -> Need | None:
        """Return what llama-fit-params says; None where it says nothing, which is told unless ``quietly``."""
        if self._file is None:
            self._untold("there is none beside llama-server", quietly=quietly)
            return None
        answers: list[Need] = []
        weights = sum(_bytes_of(file) for file in files_of(self.spec.model))
        for words in asked.argvs():
            try:
                done = subprocess.run(
                    [str(self._program), "-m", str(self.spec.model), *words],
                    check=False,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    env=self._environment,
                    timeout=_TIMEOUT_S,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                self._untold(str(error), quietly=quietly)
                return None
            need = parse(done.stdout.decode("utf-8", "replace"), weights)
            if done.returncode or need is None:
                lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
                why = [line for line in lines if "error" in line] or lines[-1:] or [f"exited with {done.returncode}"]
                self._untold(why[0], quietly=quietly)
                return None
            answers.append(need)
        beside = [self.spec.projector, None if asked.draft is None else self.spec.model.parent / asked.draft]
        return larger(answers).but(beside=sum(_bytes_of(file) for file in beside if file is not None))

    def _untold(self, why: str, *, quietly: bool) -> None:
        if not quietly:
            self._sink(Noticed("no_memory_check", f"memory is not checked: llama-fit-params: {why}"))

    def room(self, need: Need) -> Room:
        """Return what is available now; GPUs are asked only if some of the need is there."""
        return Room(machine.available_memory(), self._free() if need.devices else ())

    def _free(self) -> tuple[tuple[str, int], ...]:
        try:
            done = subprocess.run(
                [str(self._program), "--list-devices"],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=self._environment,
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ()
        return free_on_devices(done.stdout.decode("utf-8", "replace"))

    def _key(self) -> str | None:
        """Return what stands for the model, the build and everything that decides about memory."""
        import hashlib  # noqa: PLC0415 - not for plan

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
        return hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:24]

    def _known(self) -> tuple[Need | None, int]:
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
        text = json.dumps({**need.__dict__, "resident": resident, "model": str(self.spec.model)})
        temporary = self._file.with_suffix(f".{os.getpid()}.tmp")
        with suppress(OSError):  # a root that cannot be written to is asked again each time
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(self._file)


def checked(spec: ServerSpec, kept: Path, sink: Sink) -> Memory:
    """Return the memory of a launch once it is checked; ``DoesNotFit`` where it is too little."""
    memory = Memory(spec, kept, sink)
    memory.check()
    return memory


def resident_bytes(pid: int) -> int:
    """Return how much of the host's memory a process has, mapped files included; 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - faster
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


def free_on_devices(said: str) -> tuple[tuple[str, int], ...]:
    """Return the bytes free on each GPU out of what ``--list-devices`` says; one that says 0 of 0 does not know."""
    found = re.findall(r"^\s+(\S+): .*\((\d+) MiB, (\d+) MiB free\)\s*$", said, re.MULTILINE)
    return tuple((name, int(free) * _MIB) for name, total, free in found if int(total))


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
