"""About how many tokens a second a model writes: an estimate from what this machine does with models of known size.

Writing a token reads all weights that it needs once, and the cache of the context. So the time is bytes divided by a
rate, plus a constant for each layer. For the processor it is the rate at which all cores together copy memory. For GPUs
llama-bench measures it with models of zeros. Both are measured once for a machine and kept, unless it was busy.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.llama_cpp.program_environment import program_environment
from llama_runner.recommend.weightless_gguf import VOCABULARY, Shape, number_value, real_value, text_value, write_sparse
from llama_runner.system import hardware
from llama_runner.system.files import read_json, write_json
from llama_runner.system.processes import try_output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_runner.sources.gguf_header import GgufHeader

SCHEME = "speed 1"
BUSY = ", busy"
BITS = {"q4_k": 4.5, "q6_k": 6.5625, "q8_0": 8.5, "f16": 16.0}
"""Types that are measured, and bits of a weight."""
_LARGE = (2048, 4, 8192)
"""Width, layers and feed-forward width of the model of zeros: larger than caches in each type."""
_SMALL = (256, 8, 512)
"""Those of the model whose time is the constant for each layer."""
_TOKENS, _TIMES = 12, 5
_TIMEOUT_S = 60.0
_COPIED = 64 << 20
_COPY_S = 0.5
PER_LAYER_S, PER_TOKEN_S = 5e-6, 20e-6
"""Seconds beside reading, on processors: threads wait for each other in each layer, and a token is chosen and sent.
Measured with the demo model, whose weights are read in no time."""
_BUSY = 0.5
"""Part of the cores that may have other work while the rates are measured, for them to be kept."""


class Rates(Value):
    """What a machine does with one build."""

    by_type: Mapping[str, float]
    """Bytes of weights a second, by type; a copy of memory has one type, ``copy``."""
    per_layer: float
    """Seconds for each layer of a model, whatever its size."""
    measured_by: str
    """``llama-bench`` or ``copy``; with ``BUSY`` at its end where the machine had other work."""

    def rate(self, bits: float) -> float:
        """Return the bytes a second for weights of so many bits; between two types it is interpolated. Pure."""
        known = sorted((BITS.get(kind, 0.0), rate) for kind, rate in self.by_type.items())
        below = [each for each in known if each[0] <= bits] or known[:1]
        above = [each for each in known if each[0] >= bits] or known[-1:]
        (low, slow), (high, fast) = below[-1], above[0]
        return slow if high == low else slow + (fast - slow) * (bits - low) / (high - low)

    def tokens_per_second(self, reads: Reads, weights: int, kv_bytes: int) -> float:
        """Return about how many tokens a second are written; ``kv_bytes`` are read of the cache for each. Pure."""
        bits = 8 * weights / max(1, reads.elements)
        seconds = weights * reads.part / self.rate(bits) + kv_bytes / self.rate(BITS["f16"])
        return 1 / (seconds + self.per_layer * reads.layers + PER_TOKEN_S)


class Reads(Value):
    """What of a model is read for one token."""

    elements: int
    """All weights."""
    part: float
    """The part of them that is read."""
    layers: int


def reads_of(headers: Sequence[GgufHeader]) -> Reads:
    """Return what is read: not the table of tokens, unless it is the output too, and of experts those in use. Pure."""
    first = headers[0]
    architecture = first.text("general.architecture")
    experts = first.metadata.get(f"{architecture}.expert_count")
    used = first.metadata.get(f"{architecture}.expert_used_count")
    active = used / experts if isinstance(used, int) and isinstance(experts, int) and experts else 1.0
    entries = [entry for header in headers for entry in header.entries]
    has_output = any(entry.name == "output.weight" for entry in entries)
    read = 0.0
    for entry in entries:
        if "_exps." in entry.name:
            read += entry.elements * active
        elif not entry.name.startswith(("token_embd.", "per_layer_token_embd.")) or not has_output:
            read += entry.elements
    total = sum(entry.elements for entry in entries)
    layers = first.metadata.get(f"{architecture}.block_count")
    return Reads(total, read / max(1, total), layers if isinstance(layers, int) else 1)


def machine_rates(programs: Path | None, kept: Path, *, on_gpu: bool) -> Rates | None:
    """Return the rates of this machine; measures for about a second unless they are in the directory ``kept``.

    With ``on_gpu`` llama-bench measures, for some seconds; None where it is not there.
    """
    program = None
    if on_gpu and programs is not None:
        program = programs / f"llama-bench{'.exe' if os.name == 'nt' else ''}"
    if on_gpu and (program is None or not program.is_file()):
        return None
    file = kept / f"{_fingerprint(program)}.json"
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
        return _read(read_json(file))
    free = _is_free()
    rates = Rates({"copy": copy_rate()}, PER_LAYER_S, "copy") if program is None else _with_llama_bench(program)
    if rates is not None and not free:
        return rates.replace(measured_by=f"{rates.measured_by}{BUSY}")
    if rates is not None:
        with suppress(OSError):  # a root that cannot be written to is measured again each time
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {**rates.__dict__, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    return rates


def _read(found: dict[str, Any]) -> Rates:
    rates = Rates(
        {str(kind): float(rate) for kind, rate in found["by_type"].items()},
        float(found["per_layer"]),
        str(found["measured_by"]),
    )
    numbers = [*rates.by_type.values(), 1 + rates.per_layer]
    if not rates.by_type or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError(found)
    return rates


def _is_free() -> bool:
    """Return whether the machine has so little other work that what is measured now is kept."""
    try:
        return os.getloadavg()[0] <= _BUSY * hardware.physical_cores()
    except (OSError, AttributeError):  # Windows
        return True


def _fingerprint(program: Path | None) -> str:
    about: list[Any] = [SCHEME, hardware.platform_tag(), hardware.physical_cores(), hardware.cpu_features()]
    about += [hardware.total_memory() >> 30]
    if program is not None:
        status = program.stat()
        about += [str(program), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(json.dumps(about).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _with_llama_bench(program: Path) -> Rates | None:
    """Return the rates that llama-bench finds; None if it fails."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        small = directory / "small.gguf"
        _write_zeros(small, *_SMALL, "q8_0")
        least = _seconds(program, small)
        if least is None:
            return None
        each, by_type = least / _SMALL[1], {}
        for kind in BITS:
            model = directory / f"{kind}.gguf"
            _write_zeros(model, *_LARGE, kind)
            taken = _seconds(program, model)
            size = model.stat().st_size
            model.unlink()
            if taken is not None:
                by_type[kind] = size / max(taken - each * _LARGE[1], taken / 10)
        return Rates(by_type, each, "llama-bench") if by_type else None


def _seconds(program: Path, model: Path) -> float | None:
    """Return the seconds for one token: the best of some tries, since other programs only make it longer."""
    words = ["-m", model, "-p", "0", "-n", _TOKENS, "-r", _TIMES, "-t", hardware.physical_cores(), "-o", "jsonl"]
    said = try_output([program, *map(str, words)], env=program_environment(os.environ), timeout=_TIMEOUT_S)
    with suppress(ValueError, TypeError, LookupError, StopIteration, ArithmeticError):
        line = next(line for line in (said or "").splitlines() if line.startswith("{"))
        return 1 / max(map(float, json.loads(line)["samples_ts"]))
    return None


def _write_zeros(target: Path, width: int, layers: int, feed_forward: int, kind: str) -> None:
    """Write a Llama whose weights are a hole."""
    key = width // 4
    values = {
        "general.architecture": text_value("llama"),
        "llama.block_count": number_value(layers),
        "llama.context_length": number_value(4096),
        "llama.embedding_length": number_value(width),
        "llama.feed_forward_length": number_value(feed_forward),
        "llama.attention.head_count": number_value(width // 64),
        "llama.attention.head_count_kv": number_value(width // 256),
        "llama.attention.layer_norm_rms_epsilon": real_value(1e-5),
    }
    shapes: list[tuple[str, tuple[int, ...], str]]
    shapes = [(f"blk.{layer}.{name}", (width,), "f32") for layer in range(layers) for name in ("attn_norm", "ffn_norm")]
    shapes += [("token_embd", (width, VOCABULARY), kind), ("output", (width, VOCABULARY), kind)]
    shapes += [("output_norm", (width,), "f32")]
    for layer in range(layers):
        block = {"attn_q": (width, width), "attn_k": (width, key), "attn_v": (width, key)}
        block |= {"attn_output": (width, width), "ffn_gate": (width, feed_forward), "ffn_up": (width, feed_forward)}
        block["ffn_down"] = (feed_forward, width)
        shapes += [(f"blk.{layer}.{name}", shape, kind) for name, shape in block.items()]
    write_sparse(target, "llama", values, [Shape(f"{name}.weight", shape, of) for name, shape, of in shapes])


def copy_rate() -> float:
    """Return the bytes a second that all cores together read and write by copying memory. Takes about a second."""
    done: list[float] = []

    def work() -> None:
        source, target = ctypes.create_string_buffer(_COPIED), ctypes.create_string_buffer(_COPIED)
        ctypes.memmove(target, source, _COPIED)
        best = 0.0
        until = time.perf_counter() + _COPY_S
        while (began := time.perf_counter()) < until:
            ctypes.memmove(target, source, _COPIED)
            best = max(best, 2 * _COPIED / (time.perf_counter() - began))
        done.append(best)

    threads = [threading.Thread(target=work) for _ in range(hardware.physical_cores())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done)
