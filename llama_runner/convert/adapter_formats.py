"""Decides whether a LoRA adapter is converted by the built-in converter, and what it needs to know of the base model.

The built-in converter knows PEFT's plain LoRA of a few families. Everything else goes through llama.cpp's own script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import SourceError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import TypeGuard

SETTINGS = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
}
"""Architectures of base models, and llama.cpp's names of them."""
_FAMILIES = frozenset(ARCHITECTURES.values())
_LEFT_OUT = {"gemma": ("lm_head.weight",), "gemma2": ("lm_head.weight",)}
"""Tensors that the script drops for a family."""
_ROTATED = "llama"
"""The family whose queries and keys llama.cpp rotates otherwise than transformers."""


class AdapterBase(Value):
    """What the conversion of an adapter needs to know of the base model."""

    architecture: str
    """llama.cpp's name."""
    blocks: int
    heads: int
    kv_heads: int

    @property
    def numbers(self) -> tuple[str, int, int, int]:
        """The fields, as a parameter of a step."""
        return self.architecture, self.blocks, self.heads, self.kv_heads

    @property
    def norm_shift(self) -> float:
        """What is added to the weights of norms."""
        return 1.0 if self.architecture.startswith("gemma") else 0.0

    @property
    def left_out(self) -> tuple[str, ...]:
        """Tensors that are dropped."""
        return _LEFT_OUT.get(self.architecture, ())

    def rotated(self, name: str) -> int:
        """Return the number of heads whose rows are reordered in a tensor; 0 for a tensor whose rows are not."""
        if self.architecture != _ROTATED:
            return 0
        return {"q_proj.weight": self.heads, "k_proj.weight": self.kv_heads}.get(name.rpartition(".self_attn.")[2], 0)


def is_plain_lora(settings: Mapping[str, Any]) -> bool:
    """Return whether adapter_config.json describes an adapter that the built-in converter knows."""
    if settings.get("peft_type", "LORA") != "LORA" or settings.get("invocation_string"):
        return False
    tokens = settings.get("alora_invocation_tokens") or []
    plain = isinstance(tokens, list) and all(isinstance(each, int) and 0 <= each < 1 << 32 for each in tokens)
    return plain and not (settings.get("use_dora") or settings.get("fan_in_fan_out"))


def base_of_config(config: Mapping[str, Any]) -> AdapterBase | None:
    """Return the base that a config.json describes; None for one that the built-in converter does not know."""
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and len(named) == 1 else None
    heads, blocks = config.get("num_attention_heads"), config.get("num_hidden_layers")
    kv_heads = config.get("num_key_value_heads", heads)
    if architecture not in ARCHITECTURES or "draft_vocab_size" in config or _composite(config):
        return None
    if not (_is_count(heads) and _is_count(blocks) and _is_count(kv_heads)):
        return None
    return AdapterBase(ARCHITECTURES[str(architecture)], blocks, heads, kv_heads)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and value > 0


def _composite(config: Mapping[str, Any]) -> list[str]:
    return [name for name in ("text_config", "llm_config", "vision_config") if config.get(name)]


def read_base(directory: Path) -> AdapterBase:
    """Return the base in a directory of safetensors; ``SourceError`` for one that is not known here."""
    from llama_runner.convert.model_directory import ModelDirectory  # noqa: PLC0415 - not on the warm path

    found = base_of_config(ModelDirectory(directory).config)
    if found is None:
        raise SourceError(
            "the config.json of the base model is not one that adapters are converted for here",
            hint="convert both with llama.cpp's own script: --converter official",
        )
    return found


def base_of_header(metadata: Mapping[str, Any]) -> AdapterBase:
    """Return the base that the header of a GGUF file describes; ``SourceError`` for an unknown one."""
    name = str(metadata.get("general.architecture"))
    heads = metadata.get(f"{name}.attention.head_count")
    kv_heads = metadata.get(f"{name}.attention.head_count_kv", heads)
    counts = [metadata.get(f"{name}.block_count"), heads, kv_heads]
    if name not in _FAMILIES or not all(type(each) is int and each > 0 for each in counts):
        raise SourceError(
            f"an adapter of a {name} model is converted with the config.json of its base, and here is only a GGUF",
            hint="name the base as safetensors, or convert the adapter beforehand and pass the GGUF file",
        )
    return AdapterBase(name, *counts)
