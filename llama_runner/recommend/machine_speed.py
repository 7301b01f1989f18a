"""About how many tokens a second a model writes: an estimate from what this machine does with models of known size.

Writing a token reads all weights that it needs once, and computes the attention to each token of the context. So the
time is bytes divided by a rate of the type of the weights, multiplications of the attention divided by another rate,
plus a constant for each layer. llama-bench measures these with models of random weights, once for a machine and its
programs. ``model_speed`` then corrects the estimate by what llama-bench measures with the tensors of the model itself.

Without llama-bench, or while the machine has other work, the rate is that at which all cores together copy memory. It
is an upper limit: types that cost much computing, and long contexts, are slower. So the speed is a range then.
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
from llama_runner.recommend.weightless_gguf import VOCABULARY, fill_with_numbers, write_without_vocabulary
from llama_runner.sources.gguf_without_weights import Shape, number_value, real_value, text_value
from llama_runner.system import hardware
from llama_runner.system.files import read_json, write_json
from llama_runner.system.platforms import EXE, load_average
from llama_runner.system.processes import try_output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_runner.sources.gguf_header import GgufHeader

SCHEME = "speed 4"
BUSY = ", busy"
OF_THIS_MODEL = ", tensors of this model"
BITS = {"q4_k": 4.5, "q6_k": 6.5625, "q8_0": 8.5, "f16": 16.0}
"""Types that are measured, and bits of a weight."""
_LARGE = (2048, 4, 8192)
"""Width, layers and feed-forward width of the model: larger than caches in each type."""
_SMALL = (256, 8, 512)
"""Those of the model whose time is the constant for each layer."""
_CONTEXT = 2048
"""Tokens of the context at which the attention of the smaller model is measured."""
_TOKENS, _TIMES, _MOST_TIMES = 16, 4, 32
_TIMEOUT_S = 60.0
_COPIED = 64 << 20
_COPY_S = 0.5
PER_LAYER_S, PER_TOKEN_S = 5e-6, 20e-6
"""Seconds beside reading, on processors: threads wait for each other in each layer, and a token is chosen and sent.
Measured with the demo model, whose weights are read in no time; llama-bench measures those of a layer."""
MODEL_RANGE, MEASURED_RANGE, COPY_RANGE = (0.75, 1.25), (0.5, 1.25), (0.4, 1.25)
"""Parts of the estimate that the speed lies between, by what the rates were measured with. Seen with models of 0.1 to
1 billion weights (docs/recommend.md): narrow models, and types that llama-bench was not asked about, are slower."""
_BUSY = 0.5
"""Part of the cores that may have other work while the rates are measured, for them to be kept."""


class Rates(Value):
    """What a machine does with one build."""

    by_type: Mapping[str, float]
    """Bytes of weights a second, by type; a copy of memory has one type, ``copy``."""
    per_layer: float
    """Seconds for each layer of a model, whatever its size."""
    measured_by: str
    """``llama-bench`` or ``copy``; with ``BUSY`` at its end where the machine had other work, with ``OF_THIS_MODEL``
    where the estimate was corrected for a model."""
    attention: float | None = None
    """Multiplications of the attention a second; None: it takes no longer than reading the cache."""
    correction: float = 1.0
    """What the estimate is multiplied by for a model."""

    @property
    def range(self) -> tuple[float, float]:
        """Parts of the estimate that the speed lies between."""
        if self.measured_by.startswith("copy"):
            return COPY_RANGE
        return MODEL_RANGE if self.measured_by.endswith(OF_THIS_MODEL) else MEASURED_RANGE

    def rate(self, bits: float) -> float:
        """Return the bytes a second for weights of so many bits; between two types it is interpolated. Pure."""
        known = sorted((BITS.get(kind, 0.0), rate) for kind, rate in self.by_type.items())
        below = [each for each in known if each[0] <= bits] or known[:1]
        above = [each for each in known if each[0] >= bits] or known[-1:]
        (low, slow), (high, fast) = below[-1], above[0]
        return slow if high == low else slow + (fast - slow) * (bits - low) / (high - low)

    def tokens_per_second(self, reads: Reads, weights: int, kv_bytes: int) -> float:
        """Return about how many tokens a second are written. Pure.

        ``kv_bytes`` are read of the cache for each token, of elements of 16 bits.
        """
        bits = 8 * weights / max(1, reads.elements)
        seconds = weights * reads.part / self.rate(bits) + self.per_layer * reads.layers + PER_TOKEN_S
        context = kv_bytes / self.rate(BITS["f16"])
        if self.attention is not None:
            context = max(context, kv_bytes / 2 * reads.queries / self.attention)
        return self.correction / (seconds + context)


class Reads(Value):
    """What of a model is read for one token."""

    elements: int
    """All weights."""
    part: float
    """The part of them that is read."""
    layers: int
    queries: float = 1.0
    """Queries that each key of the cache is multiplied with: attention heads that share one."""


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
    layers = layers if isinstance(layers, int) else 1
    return Reads(total, read / max(1, total), layers, _queries(first, architecture))


def _queries(header: GgufHeader, architecture: str | None) -> float:
    """Return how many attention heads share a key; 1 where heads differ by layer."""
    heads = header.metadata.get(f"{architecture}.attention.head_count")
    shared = header.metadata.get(f"{architecture}.attention.head_count_kv", heads)
    if f"{architecture}.attention.kv_lora_rank" in header.metadata:
        shared = 1  # all heads share what is kept of a token
    if not isinstance(heads, int) or not isinstance(shared, int) or not 0 < shared <= heads:
        return 1.0
    return heads / shared


def llama_bench(programs: Path | None) -> Path | None:
    """Return llama-bench of a directory of programs; None if it is not there."""
    program = None if programs is None else programs / f"llama-bench{EXE}"
    return program if program is not None and program.is_file() else None


def machine_rates(program: Path | None, kept: Path, *, on_gpu: bool, free: bool) -> Rates | None:
    """Return the rates of this machine; measures for some seconds unless they are in the directory ``kept``.

    ``program`` is llama-bench. What is measured while the machine is not ``free`` is not kept. None where only
    llama-bench knows, of a GPU, and it is not there.
    """
    if on_gpu and program is None:
        return None
    file = kept / f"{fingerprint(program)}.json"
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
        return _read(read_json(file))
    rates = None
    if program is not None and (free or on_gpu):  # beside other work its threads wait for each other most of the time
        rates = _with_llama_bench(program)
    if rates is None and not on_gpu:
        rates = Rates({"copy": copy_rate()}, PER_LAYER_S, "copy")
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
        None if found["attention"] is None else float(found["attention"]),
    )
    numbers = [*rates.by_type.values(), 1 + rates.per_layer, 1.0 if rates.attention is None else rates.attention]
    if not rates.by_type or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError(found)
    return rates


def is_free() -> bool:
    """Return whether the machine has so little other work that what is measured now is kept."""
    return (load_average() or 0) <= _BUSY * hardware.physical_cores()


def fingerprint(program: Path | None) -> str:
    """Return what identifies a machine and its llama-bench."""
    about: list[Any] = [SCHEME, hardware.platform_tag(), hardware.physical_cores(), hardware.cpu_features()]
    about += [hardware.total_memory() >> 30]
    if program is not None:
        status = program.stat()
        about += [str(program), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(json.dumps(about).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _with_llama_bench(program: Path) -> Rates | None:
    """Return the rates that llama-bench finds; None if it fails."""
    with tempfile.TemporaryDirectory() as name:
        directory, taken, sizes = Path(name), {}, {}
        for kind in BITS:
            model = directory / f"{kind}.gguf"
            _write_model(model, *_LARGE, kind)
            sizes[kind] = model.stat().st_size
            if (seconds := seconds_of(program, model)) is not None:
                taken[kind] = seconds
            model.unlink()
        small = directory / "small.gguf"
        _write_model(small, *_SMALL, "q8_0")
        least, later = seconds_of(program, small), seconds_of(program, small, _CONTEXT)
        if least is None or "q8_0" not in taken:
            return None
        width, layers, _ = _SMALL
        each = max(0.0, least - small.stat().st_size * taken["q8_0"] / sizes["q8_0"]) / layers
        by_type = {kind: sizes[kind] / max(seconds - each * _LARGE[1], seconds / 10) for kind, seconds in taken.items()}
        multiplications = 2 * width * layers * _CONTEXT  # of keys and values with all queries
        attention = multiplications / (later - least) if later is not None and later > least else None
        return Rates(by_type, each, "llama-bench", attention)


def seconds_of(program: Path, model: Path, context: int = 0, *, for_s: float = 0.0) -> float | None:
    """Return the seconds for one token: the best of some tries, since other programs only make it longer.

    With ``for_s`` it is tried again for about so many seconds: other programs may take the memory for seconds.
    """
    best = _best_try(program, model, context, _TIMES)
    if best is None or (more := min(_MOST_TIMES, int(for_s / (best * _TOKENS)))) <= _TIMES:
        return best
    return min(best, _best_try(program, model, context, more) or best)


def _best_try(program: Path, model: Path, context: int, times: int) -> float | None:
    words = ["-m", model, "-p", "0", "-n", _TOKENS, "-d", context, "-r", times, "-t", hardware.physical_cores()]
    argv: list[str | Path] = [program, *map(str, words), "-o", "jsonl"]
    said = try_output(argv, env=program_environment(os.environ), timeout=_TIMEOUT_S)
    with suppress(ValueError, TypeError, LookupError, StopIteration, ArithmeticError):
        line = next(line for line in (said or "").splitlines() if line.startswith("{"))
        return 1 / max(map(float, json.loads(line)["samples_ts"]))
    return None


def _write_model(target: Path, width: int, layers: int, feed_forward: int, kind: str) -> None:
    """Write a Llama of random weights."""
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
    write_without_vocabulary(
        target, "llama", values, [Shape(f"{name}.weight", shape, of) for name, shape, of in shapes]
    )
    fill_with_numbers(target)


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
