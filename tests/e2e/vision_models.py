"""Tiny vision models with random weights, and an image for them."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

from tests.convert import projectors
from tests.convert.checkpoints import LLAMA_CONFIG, edit_json, write_json
from tests.convert.families import composites, gemma, qwen
from tests.convert.projectors import IMAGES, SIZES
from tests.convert.tiny import ATTENTION, EMBEDDINGS, GATED, HEAD, expand, sizes_of, tiny

if TYPE_CHECKING:
    from pathlib import Path


def png(side: int = 32, blue: int = 128) -> bytes:
    """Return a square image with three channels."""
    rows = b"".join(b"\0" + bytes(value for x in range(side) for value in (8 * x, 8 * y, blue)) for y in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


TEXT: dict[str, Any] = {
    **LLAMA_CONFIG, "architectures": None, "model_type": "mistral", "hidden_size": 64, "intermediate_size": 96,
    "vocab_size": 336, "max_position_embeddings": 2048, "bos_token_id": 330, "eos_token_id": 330,
}  # fmt: skip
QWEN: dict[str, Any] = {**qwen.CONFIG, "max_position_embeddings": 2048, "architectures": None, "model_type": None}
LLAMA = EMBEDDINGS + ATTENTION + GATED + HEAD
SMALL = LLAMA.replace("model.", "model.text_model.")
VLLAMA = {"model_type": "llama", "architectures": ["VLlama3ForCausalLM"]}
AROUND = ("\n\n", "\n", "<fake_token_around_image>", "<global-img>")
"""What llama.cpp puts around the images of Idefics 3."""
BREAK = {"[IMG_BREAK]": 12, "[IMG]": 13, "[IMG_END]": 14}


def part(settings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**settings, **changes}.items() if value is not None}


MODELS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "gemma3": (
        projectors.gemma3(text_config=part(composites.GEMMA, max_position_embeddings=2048)),
        composites.first(gemma.THIRD), projectors.GEMMA3, "spm",
    ),
    "pixtral": (
        projectors.pixtral(text_config=part(TEXT)), composites.first(LLAMA), projectors.PIXTRAL, "gpt2",
    ),
    "idefics3": (projectors.idefics3(text_config=part(TEXT, **VLLAMA)), SMALL, projectors.IDEFICS3, "gpt2"),
    "smolvlm": (projectors.smolvlm(text_config=part(TEXT, **VLLAMA)), SMALL, projectors.IDEFICS3, "gpt2"),
    "mistral3": (
        projectors.mistral3(text_config=part(TEXT)), composites.first(LLAMA), projectors.PIXTRAL + projectors.MERGER,
        "gpt2",
    ),
    "qwen2vl": (
        part({**projectors.qwen2(), **part(QWEN, rope_scaling=composites.MROPE)}), composites.TABLE2 + HEAD,
        projectors.QWEN2, "gpt2",
    ),
    "qwen25vl": (
        part({**projectors.qwen25(projectors.PERIODIC), **part(QWEN, rope_scaling=composites.MROPE)}),
        composites.TABLE2 + HEAD, projectors.QWEN25, "gpt2",
    ),
    "qwen3vl": (
        projectors.qwen3(text_config=part({**composites.QWEN3, "max_position_embeddings": 2048, "architectures": None,
                                           "model_type": "qwen3_vl_text"})),
        composites.inside(composites.TABLE3 + HEAD), projectors.QWEN3 + projectors.STACKED.replace("{n}", "0"), "gpt2",
    ),
}  # fmt: skip
"""Configuration, tensors of the text part, tensors of the vision part, tokenizer."""


def build(folder: Path, title: str) -> Path:
    """Write a vision model with random weights."""
    config, text, vision, tokenizer = MODELS[title]
    settings = {**config, **config.get("text_config", {})}
    sizes = {**SIZES, "qkv": 96, "merged": 128, "joined": 128, "inner": 64 if title == "qwen2vl" else SIZES["inner"]}
    sizes["blocks"] = config["vision_config"].get("depth", SIZES["blocks"])
    seen = {name: shape for name, shape in expand(vision, sizes).items() if not projectors.is_text(name)}
    tiny(folder, config, {**expand(text, sizes_of(settings)), **seen}, tokenizer=tokenizer)
    write_json(folder / "preprocessor_config.json", {**IMAGES, "image_seq_length": 16})
    if projectors.PIXTRAL in vision:
        added = [{"content": token, "id": number, "special": True} for token, number in BREAK.items()]
        edit_json(folder / "tokenizer_config.json", added_tokens_decoder={str(one["id"]): one for one in added})
    tokenizer_json = folder / "tokenizer.json"
    if config["model_type"] in ("idefics3", "smolvlm"):
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        more = [{"id": 331 + number, "content": text, "special": True, **flags} for number, text in enumerate(AROUND)]
        known = json.loads(tokenizer_json.read_text(encoding="utf-8"))["added_tokens"]
        edit_json(tokenizer_json, added_tokens=[*known, *more])
    return folder
