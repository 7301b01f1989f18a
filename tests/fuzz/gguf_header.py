"""Fuzz target: headers of GGUF files, through every reader of them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

from llama_runner.cli.convert_cmds import describe
from llama_runner.core.digest import canonical_json
from llama_runner.core.errors import SourceError
from llama_runner.request.model_inspection import inspect
from llama_runner.sources.gguf_header import check_model, read_header
from tests.fuzz import mutate
from tests.fuzz.harness import Case, Target, check_error, check_text, decoded, encoded, explore

LAYOUTS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
KEYS = (
    *("general.architecture", "general.name", "general.file_type", "general.alignment", "llama.context_length"),
    *("split.count", "split.no", "tokenizer.ggml.tokens", "tokenizer.chat_template", "general.type", ""),
)
LIES = (0, 1, 2, 2**16, 2**31, 2**32, 2**61, 2**63 - 1, 2**63, 2**64 - 1)
NAMES = (
    *("x.gguf", "x-00001-of-00002.gguf", "x-00001-of-00001.gguf", "m-00000-of-00000.gguf", "m-00003-of-00002.gguf"),
    *("-00001-of-00001.gguf", "m-00000-of-00001.gguf", "m-00009-of-00009.gguf", "m-00001-of-00300.gguf"),
    *("x", "\x1b[31m.gguf", "a\nhint: b.gguf", "\udcff.gguf", "x.GGUF", "mmproj-x.gguf"),
)


def string(content: bytes, length: int | None = None) -> bytes:
    """A string as it stands in a file; its length may lie."""
    return struct.pack("<Q", len(content) if length is None else length) + content


def pair(key: str, kind: int, value: Any, layout: str = "") -> bytes:
    """One value under its key."""
    return string(key.encode()) + struct.pack("<I", kind) + (struct.pack("<" + layout, value) if layout else value)


def head(pairs: list[bytes], tensors: list[bytes], *, counts: tuple[int | None, int | None] = (None, None)) -> bytes:
    """A file of these; the counts may lie."""
    said = [len(found) if lie is None else lie for found, lie in zip((tensors, pairs), counts, strict=True)]
    return b"GGUF" + struct.pack("<IQQ", 3, *said) + b"".join(pairs) + b"".join(tensors)


def _text(rng: Random) -> bytes:
    content = rng.choice((b"", b"llama", b"\xff\xfe", b"2", mutate.text(rng).encode("utf-8", "surrogatepass")))
    return string(content, rng.choice(LIES) if rng.random() < 0.08 else None)


def _value(rng: Random) -> bytes:
    how = rng.random()
    kind = rng.choice(list(LAYOUTS))
    if how < 0.25:
        return struct.pack("<I", kind) + rng.randbytes(struct.calcsize("<" + LAYOUTS[kind]))
    if how < 0.5:
        kind = rng.choice((4, 5, 10, 11, 6, 12))
        return struct.pack("<I" + LAYOUTS[kind], kind, rng.choice((*range(65), 2**31 - 1)))
    if how < 0.55:
        return struct.pack("<If", 6, rng.choice((float("nan"), float("inf"), float("-inf"))))
    if how < 0.8:
        return struct.pack("<I", 8) + _text(rng)
    items = [_text(rng) for _ in range(rng.randrange(4))]
    count = rng.choice(LIES) if rng.random() < 0.2 else len(items)
    return struct.pack("<IIQ", 9, rng.choice((*LAYOUTS, 8, 8, 8, 9, 13, 2**31)), count) + b"".join(items)


def _pair(rng: Random) -> bytes:
    return (string(rng.choice(KEYS).encode()) if rng.random() < 0.8 else _text(rng)) + _value(rng)


def _tensor(rng: Random) -> bytes:
    shape = [rng.choice((*LIES, 3, 32, 256)) for _ in range(rng.randrange(5))]
    said = rng.choice((0, 5, 2**31)) if rng.random() < 0.05 else len(shape)
    kind = rng.choice((0, 0, 1, 8, 12, rng.randrange(46), 2**32 - 1))
    rest = struct.pack("<IQ", kind, rng.choice((0, 0, 0, *LIES)))
    return _text(rng) + struct.pack(f"<I{len(shape)}Q", said, *shape) + rest


def generate(rng: Random) -> Case:
    """Make a file of random values, some of its numbers lying, and now and then damaged bytes."""
    counts = tuple(rng.choice(LIES) if rng.random() < 0.05 else None for _ in range(2))
    pairs, tensors = [_pair(rng) for _ in range(rng.randrange(6))], [_tensor(rng) for _ in range(rng.randrange(3))]
    content = head(pairs, tensors, counts=(counts[0], counts[1])) + bytes(rng.choice((0, 0, 64, 4096)))
    if rng.random() < 0.3:
        content = mutate.raw(rng, content)
    if rng.random() < 0.05:
        content = b"GGUF\x03\0\0\0" + rng.randbytes(rng.randrange(200))
    return {"name": rng.choice(NAMES) if rng.random() < 0.4 else "x.gguf", "content": decoded(content)}


def check(case: Case, scratch: Path) -> None:
    """Look at the file in every way that there is."""
    path = scratch / case["name"]
    path.write_bytes(encoded(case["content"]))
    for look in (lambda: canonical_json(read_header(path).facts()), lambda: check_model(path)):
        try:
            look()
        except SourceError as error:
            check_error(error)
    found = inspect(path)
    json.dumps(found.to_json(), allow_nan=False)
    check_text(describe(found, tensors=True))


TARGET = Target("gguf_header", generate, check)


def run(seconds: float, seed: int) -> dict[str, Any]:
    """Run the target; see `harness.explore`."""
    return explore(TARGET, seconds, seed)
