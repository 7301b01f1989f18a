"""Estimates the memory of a server, for any context and any size of the weights.

llama-fit-params gives the memory of the model's skeleton at two contexts; between them it is linear. Without programs
the memory is computed from the model's metadata, which is a rough estimate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.recommend.weightless_gguf import write_skeleton
from llama_runner.serving.llama_server.launch_spec import ServerOptions, spec_of
from llama_runner.serving.llama_server.memory_by_fit_params import Need, Room, extrapolated
from llama_runner.serving.llama_server.memory_check import Memory
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.recommend.model_headers import Headers

CACHE_TYPES = ("f16", "q8_0")
"""Cache types that are considered, the best first."""
DEFAULT_TRAINED = 4096
"""Context of a model whose files name none."""
PROCESS, PER_TOKEN_OF_VOCABULARY = 18 << 20, 110
"""Bytes of the process, and of the tokenizer for one token. Measured on Linux."""
_CONTEXTS = (4096, 1 << 17)
"""Contexts that are asked about; so far apart since llama-fit-params says whole MiB."""
_SHORT = 1024
"""Models with less context are encoders, whose positions end there."""
_BATCH = 512
_ELEMENT = {"f16": 2.0, "q8_0": 34 / 32}


class MemoryModel(Value):
    """The need of a model as a function of context and weights, for one cache type."""

    near: Need
    far: Need
    contexts: tuple[int, int]
    """Tokens of context of ``near`` and ``far``."""
    process: int

    def need(self, context: int, weights: int) -> Need:
        """Return the need with a context and with weights of another size. Pure."""
        low, high = self.contexts
        need = extrapolated(self.near, self.far, (context - low) / (high - low))
        part = weights / max(1, need.weights)
        devices = tuple((name, round(model * part), kv, work) for name, model, kv, work in need.devices)
        host = (weights - sum(device[1] for device in devices), *need.host[1:])
        return Need(devices, (host[0], host[1], host[2]), need.beside + self.process)

    def total(self, context: int, weights: int) -> int:
        """Return the bytes of the need, wherever they are. Pure."""
        need = self.need(context, weights)
        return need.on_host + sum(need.on_devices.values())

    @property
    def kv_bytes(self) -> int:
        """Bytes of the cache for one token of context."""
        low, high = self.contexts
        return max(0, self.far.parts["context"] - self.near.parts["context"]) // (high - low)


def memory_models(
    model: Headers, programs: Path | None, directory: Path, trained: int
) -> tuple[dict[str, MemoryModel], Room, str]:
    """Return the memory models by cache type, what is available, and what said so.

    ``directory`` is for the skeleton, ``programs`` has llama-fit-params; without it the estimate is of the metadata.
    """
    first = model.headers[0]
    tokens = first.arrays.get("tokenizer.ggml.tokens", 0)
    contexts = _CONTEXTS if trained >= _SHORT else (max(1, trained // 2), max(2, trained))
    process = PROCESS + tokens * PER_TOKEN_OF_VOCABULARY
    asked = None if programs is None else _asked(model, programs, directory, contexts)
    needs, room, by = asked or (*_computed(first.metadata, contexts), "metadata")
    return {kind: MemoryModel(near, far, contexts, process) for kind, (near, far) in needs.items()}, room, by


def _asked(
    model: Headers, programs: Path, directory: Path, contexts: tuple[int, int]
) -> tuple[dict[str, tuple[Need, Need]], Room, str] | None:
    """Return what llama-fit-params says of the skeleton; None if it says nothing."""
    skeleton = directory / "skeleton.gguf"
    write_skeleton(skeleton, model.path, model.headers)
    found: dict[str, tuple[Need, Need]] = {}
    room = Room(0)
    for kind in CACHE_TYPES:
        needs = []
        for context in contexts:
            words = () if kind == "f16" else ("-fa", "on", "-ctk", kind, "-ctv", kind)
            options = ServerOptions(ctx_size=context, extra=words)
            spec = spec_of(
                options,
                binary=programs / "llama-server",
                model=skeleton,
                alias="skeleton",
                trained_context=None,
                cores=1,
            )
            memory = Memory(spec, directory, lambda _event: None)
            needs.append(memory.ask(memory.question, quietly=True))
        near, far = needs
        if near is not None and far is not None:
            found[kind], room = (near, far), room if room.host else memory.room(near)
    return (found, room, "llama-fit-params") if CACHE_TYPES[0] in found else None


def _computed(metadata: Mapping[str, object], contexts: tuple[int, int]) -> tuple[dict[str, tuple[Need, Need]], Room]:
    """Return the needs by the usual attention: keys and values of all layers, and work space for a batch."""
    cache, work = kv_bytes_of(metadata), work_bytes_of(metadata)
    needs = {
        kind: (
            Need((), (1, round(cache / 2 * size * contexts[0]), work)),
            Need((), (1, round(cache / 2 * size * contexts[1]), work)),
        )
        for kind, size in _ELEMENT.items()
    }
    return needs, Room(hardware.available_memory())


def kv_bytes_of(metadata: Mapping[str, object]) -> int:
    """Return the bytes of keys and values of one token at 16 bits; more than is needed for models with other layers."""
    number = _numbers(metadata)
    heads = number("attention.head_count") or 1
    each = number("embedding_length") // heads
    if latent := number("attention.kv_lora_rank"):
        return 2 * number("block_count") * (latent + number("rope.dimension_count"))
    width = (number("attention.key_length") or each) + (number("attention.value_length") or each)
    return 2 * number("block_count") * (number("attention.head_count_kv") or heads) * width


def work_bytes_of(metadata: Mapping[str, object]) -> int:
    """Return about the bytes of the work space of one batch."""
    number = _numbers(metadata)
    return 4 * _BATCH * (2 * number("feed_forward_length") + 4 * number("embedding_length"))


def _numbers(metadata: Mapping[str, object]) -> Callable[[str], int]:
    """Return a function from the end of a key to its number; 0 for one that is absent or an array."""
    architecture = metadata.get("general.architecture")

    def number(key: str) -> int:
        value = metadata.get(f"{architecture}.{key}")
        return value if type(value) is int and value >= 0 else 0

    return number
