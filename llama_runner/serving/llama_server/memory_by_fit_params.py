"""What a server needs in memory and where it does not fit: the question for llama-fit-params and its answer. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.serving.llama_server.served_task import purpose_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.serving.llama_server.launch_spec import ServerSpec

HOST = "Host"
MIB = 1 << 20
_SLOTS = 4
"""How many sequences llama-server serves at once, unless told otherwise; they share one KV cache then."""

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
    "-cram": "cache_ram", "--cache-ram": "cache_ram",
    "-fit": "fit", "--fit": "fit", "-md": "draft", "--model-draft": "draft", "--spec-draft-model": "draft",
}  # fmt: skip
"""Options of llama-server that decide about memory: passed on, or understood here."""


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
    cache_ram: str = "8192"
    """MiB that prompts may be kept in; -1: without a limit."""
    rest: tuple[str, ...] = ()

    @property
    def spills(self) -> bool:
        """Whether llama-server itself moves layers that a GPU has no room for to the host."""
        chosen = {"--tensor-split", "--override-tensor"} & set(self.rest)
        return self.fit != "off" and self.gpu_layers in (None, "auto", "-1") and not chosen

    @property
    def prompts(self) -> int:
        """Bytes that prompts may be kept in; less than 0: without a limit."""
        return int(self.cache_ram) * MIB if self.cache_ram.lstrip("-").isdigit() else 0

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


def question(spec: ServerSpec, environment: Mapping[str, str]) -> Question:
    """Return what to ask about a server; ``environment`` is its own. Pure."""
    fields: dict[str, Any] = {}
    if spec.ctx_size is not None:
        fields["ctx_size"] = str(spec.ctx_size)
    if spec.gpu_layers is not None:
        fields["gpu_layers"] = str(spec.gpu_layers)
    rest = spec.adapter_words
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
    if purpose_of(spec, environment).kind != "text":  # no prompts are kept then
        fields["cache_ram"] = "0"
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
    lines = [match for line in said.splitlines() if (match := re.fullmatch(r"(\S+) (\d+) (\d+) (\d+)\s*", line))]
    if not lines or lines[-1][1] != HOST:
        return None
    half = MIB // 2
    rows = [(line[1], int(line[2]) * MIB, int(line[3]) * MIB, int(line[4]) * MIB) for line in lines]
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


def extrapolated(near: Need, far: Need, times: float) -> Need:
    """Return the need so many times as far away from ``near`` as ``far`` is: it is linear in the context."""

    def beyond(a: int, b: int) -> int:
        return round(a + (b - a) * times)

    pairs = zip(near.devices, far.devices, strict=True)
    devices = tuple((a[0], beyond(a[1], b[1]), beyond(a[2], b[2]), beyond(a[3], b[3])) for a, b in pairs)
    host = tuple(beyond(*pair) for pair in zip(near.host, far.host, strict=True))
    return Need(devices, (host[0], host[1], host[2]), far.beside)


def free_on_devices(said: str) -> tuple[tuple[str, int], ...]:
    """Return the bytes free on each GPU out of what ``--list-devices`` says; one that says 0 of 0 does not know."""
    found = re.findall(r"^\s+(\S+): .*\((\d+) MiB, (\d+) MiB free\)\s*$", said, re.MULTILINE)
    return tuple((name, int(free) * MIB) for name, total, free in found if int(total))
