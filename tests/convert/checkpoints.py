"""Builds tiny checkpoints for the conversion tests: deterministic weights, any layout, any breakage.

Written without the safetensors package, so that broken files can be made as easily as good ones. numpy's
legacy ``RandomState`` gives the same numbers in every version.
"""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DATA = Path(__file__).resolve().parent.parent / "data" / "convert"
Shapes = dict[str, tuple[int, ...]]
# Numbers where rounding to 16 bits is delicate: ties, the largest, too large, subnormal, infinite, NaN.
DELICATE = (0.0, -0.0, 65504.0, 65519.0, 65520.0, 1e6, -3e38, 6e-8, 2.9e-8, 1e-40, 1.00048828125, 1.00390625,
            1.01171875, float("inf"), float("-inf"), float("nan"))  # fmt: skip


def bf16(numbers: np.ndarray[Any, Any]) -> bytes:
    """float32 cut to bfloat16."""
    return (numbers.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


ENCODERS: dict[str, Callable[[np.ndarray[Any, Any]], bytes]] = {
    "BF16": bf16,
    "F16": lambda numbers: numbers.astype("<f2").tobytes(),
    "F32": lambda numbers: numbers.astype("<f4").tobytes(),
    "F64": lambda numbers: numbers.astype("<f8").tobytes(),
    "I64": lambda numbers: numbers.astype("<i8").tobytes(),
}


DTYPE_BYTES = {"F16": 2, "F32": 4, "F64": 8}


@lru_cache(maxsize=256)
def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The weights of one tensor, depending on its name alone. They are kept, and so cannot be written to."""
    made = np.random.RandomState(crc32(name.encode())).standard_normal(shape)
    made.flags.writeable = False
    return made


def encoded(shapes: Shapes, dtype: str, *, delicate: str = "") -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Tensors as they stand in a file; the one named ``delicate`` begins with awkward numbers."""
    tensors = {}
    for name, shape in shapes.items():
        values = numbers(name, shape)
        if name == delicate:
            values = values.copy()
            values.reshape(-1)[: len(DELICATE)] = DELICATE
        if name.endswith("A_log"):
            values = with_plain_exponentials(values, dtype)
        with np.errstate(all="ignore"):
            tensors[name] = (dtype, shape, ENCODERS[dtype](values))
    return tensors


def with_plain_exponentials(values: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Numbers near the given ones of which the exponential is not halfway between two.

    Every mathematical library rounds these to the same number. Of others torch gives the next one at times.
    """
    wanted = np.float16 if dtype == "F16" else np.float32
    values = values.copy()
    for step in range(100):
        stored = np.frombuffer(ENCODERS[dtype](values), dtype="<u2" if dtype == "BF16" else f"<f{DTYPE_BYTES[dtype]}")
        exact = (stored.astype("<u4") << 16).view("<f4") if dtype == "BF16" else stored
        results = np.exp(exact.astype("<f4").astype("<f8")).reshape(values.shape)
        places = results / np.spacing(results.astype(wanted)).astype("<f8")
        delicate = np.abs(places - np.floor(places) - 0.5) < 0.1
        if not delicate.any():
            return values
        values[delicate] += 0.01 * (step + 1)
    raise AssertionError(values)


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """A well-formed safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    write_raw(path, json.dumps(header).encode(), b"".join(data for _, _, data in tensors.values()))


def write_raw(path: Path, header: bytes, data: bytes, *, length: int | None = None) -> None:
    """Any header and data, with a length that may lie."""
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)


def overwrite(model: Path, tensor: str, values: list[float]) -> None:
    """Put numbers in bf16 where a tensor begins."""
    path = model / "model.safetensors"
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    at = start + json.loads(content[8:start])[tensor]["data_offsets"][0]
    bits = bf16(np.array(values))
    content[at : at + len(bits)] = bits
    path.write_bytes(content)


def write_json(path: Path, value: object, indent: int | None = 2) -> None:
    """Write JSON. Without indentation Python's encoder in C does it, which takes a tenth for a real vocabulary."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent), encoding="utf-8")


def edit_json(path: Path, **changes: object) -> None:
    """Set values in a JSON file; None removes one."""
    value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    value.update(changes)
    write_json(path, {key: item for key, item in value.items() if item is not None})


def copy_tokenizer(directory: Path, kind: str, *names: str) -> None:
    """Bring one of the small tokenizers into a checkpoint."""
    for source in sorted((DATA / "tokenizers" / kind).iterdir()):
        if not names or source.name in names:
            shutil.copyfile(source, directory / source.name)


LLAMA_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 420,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


def llama_shapes(config: Mapping[str, Any], *, biases: bool = False, head: bool = True) -> Shapes:
    """The tensors of a Llama checkpoint with that configuration."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or width // heads
    queries, keys = heads * size, (config.get("num_key_value_heads") or heads) * size
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    if head:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    for block in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{block}"
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (width,)
        matrices = {
            "self_attn.q_proj": (queries, width),
            "self_attn.k_proj": (keys, width),
            "self_attn.v_proj": (keys, width),
            "self_attn.o_proj": (width, queries),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        for name, shape in matrices.items():
            shapes[f"{prefix}.{name}.weight"] = shape
            if biases:
                shapes[f"{prefix}.{name}.bias"] = shape[:1]
    shapes["model.norm.weight"] = (width,)
    return shapes


def llama(directory: Path, *, dtype: str = "BF16", tokenizer: str = "spm", biases: bool = False, head: bool = True,
          delicate: str = "", **changes: Any) -> Path:  # fmt: skip
    """A Llama checkpoint in one file; ``changes`` go into config.json, where None removes a value."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in {**LLAMA_CONFIG, **changes}.items() if value is not None}
    write_json(directory / "config.json", config)
    full = {**LLAMA_CONFIG, **config}
    if "num_key_value_heads" in changes and changes["num_key_value_heads"] is None:
        full["num_key_value_heads"] = None
    shapes = llama_shapes(full, biases=biases, head=head)
    write_safetensors(directory / "model.safetensors", encoded(shapes, dtype, delicate=delicate))
    if tokenizer:
        copy_tokenizer(directory, tokenizer)
    return directory


BERT_CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 204,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def bert_shapes(config: Mapping[str, Any]) -> Shapes:
    """The tensors of a BertModel."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
        "pooler.dense.weight": (width, width),
        "pooler.dense.bias": (width,),
    }
    for block in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{block}"
        matrices = {
            "attention.self.query": (width, width),
            "attention.self.key": (width, width),
            "attention.self.value": (width, width),
            "attention.output.dense": (width, width),
            "intermediate.dense": (inner, width),
            "output.dense": (width, inner),
        }
        for name, shape in matrices.items():
            shapes[f"{prefix}.{name}.weight"] = shape
            shapes[f"{prefix}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{prefix}.{name}.weight"] = (width,)
            shapes[f"{prefix}.{name}.bias"] = (width,)
    return shapes


def bert(directory: Path, *, dtype: str = "F32", prefix: str = "", old_names: bool = False,
         extra: Shapes | None = None, word_list: bool = False, **changes: Any) -> Path:  # fmt: skip
    """A BERT checkpoint in one file; ``prefix`` goes before the names, ``old_names`` are gamma and beta."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in {**BERT_CONFIG, **changes}.items() if value is not None}
    write_json(directory / "config.json", config)
    shapes = {f"{prefix}{name}": shape for name, shape in bert_shapes({**BERT_CONFIG, **config}).items()}
    if old_names:
        shapes = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): shape
            for name, shape in shapes.items()
        }
    tensors = encoded({**shapes, **(extra or {})}, dtype)
    tensors.update(encoded({f"{prefix}embeddings.position_ids": (1, 64)}, "I64"))
    write_safetensors(directory / "model.safetensors", tensors)
    copy_tokenizer(directory, "wordpiece", "vocab.txt" if word_list else "tokenizer.json")
    return directory


def shard(directory: Path, count: int, *, index: bool = True) -> None:
    """Split model.safetensors into shards, in the order of the file."""
    single = directory / "model.safetensors"
    data = single.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    names = list(header)
    table = {}
    for number in range(count):
        part = {}
        for name in names[number::count]:
            entry = header[name]
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            part[name] = (entry["dtype"], tuple(entry["shape"]), data[begin:end])
            table[name] = f"model-{number + 1:05}-of-{count:05}.safetensors"
        write_safetensors(directory / f"model-{number + 1:05}-of-{count:05}.safetensors", part)
    single.unlink()
    if index:
        write_json(directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": table})
