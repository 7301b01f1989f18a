"""LoRA adapters as PEFT saves them, and the official script that converts them.

python -m tests.convert.adapters REFERENCE_PYTHON LLAMA_CPP_TREE     writes the digests of the official output
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.convert.checkpoints import DATA, copy_tokenizer, encoded, write_json, write_safetensors

GOLDENS = DATA / "official_adapters.json"
NAME = "tiny-llama-legal-lora"
WIDTH, INNER, HEADS, KEYS, HEAD, VOCABULARY = 64, 96, 4, 2, 16, 336
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEYS,
    "num_hidden_layers": 11,
    "vocab_size": VOCABULARY,
    "head_dim": HEAD,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}
QUERIES = HEADS * HEAD
_MODULES = {
    "self_attn.q_proj": (QUERIES, WIDTH),
    "self_attn.k_proj": (KEYS * HEAD, WIDTH),
    "self_attn.v_proj": (KEYS * HEAD, WIDTH),
    "self_attn.o_proj": (WIDTH, QUERIES),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}
CARD = """---
base_model: acme/Tiny-Llama-2B-Instruct
library_name: peft
license: apache-2.0
tags: [lora, legal]
language: [de]
---
# Legal
"""
Shapes = dict[str, tuple[int, ...]]


@dataclass
class Case:
    """An adapter and its base model."""

    architecture: str = "LlamaForCausalLM"
    model_type: str = "llama"
    config: Mapping[str, Any] = field(default_factory=dict)
    shapes: Shapes = field(default_factory=dict)
    dtypes: tuple[str, str] = ("F32", "F32")
    """Of the matrices A and of the others."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    name: str = NAME

    def build(self, folder: Path) -> tuple[Path, Path]:
        """Write the adapter and the small files of its base; return both directories."""
        adapter, base = folder / self.name, folder / "base"
        adapter.mkdir(parents=True)
        base.mkdir()
        every = {"architectures": [self.architecture], "model_type": self.model_type, **SIZES, **self.config}
        write_json(base / "config.json", {key: value for key, value in every.items() if value is not None})
        copy_tokenizer(base, "spm")
        settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "acme/Tiny-Llama-2B"}
        write_json(adapter / "adapter_config.json", {**settings, **self.settings})
        if self.card:
            (adapter / "README.md").write_text(self.card, encoding="utf-8")
        tensors: dict[str, Any] = {}
        for name, shape in self.shapes.items():
            tensors |= encoded({name: shape}, self.dtypes[0 if "_A" in name else 1])
        write_safetensors(adapter / "adapter_model.safetensors", tensors)
        return adapter, base


def layers(*numbers: int, rank: int = 4, modules: tuple[str, ...] = tuple(_MODULES)) -> Shapes:
    found: Shapes = {}
    for number in numbers:
        for module in modules:
            rows, columns = _MODULES[module]
            name = f"base_model.model.model.layers.{number}.{module}"
            found |= {f"{name}.lora_A.weight": (rank, columns), f"{name}.lora_B.weight": (rows, rank)}
    return found


def embeddings(rank: int = 4) -> Shapes:
    name = "base_model.model.model.embed_tokens"
    return {f"{name}.lora_embedding_A": (rank, VOCABULARY), f"{name}.lora_embedding_B": (WIDTH, rank)}


def head(rank: int = 4) -> Shapes:
    name = "base_model.model.lm_head"
    return {f"{name}.lora_A.weight": (rank, WIDTH), f"{name}.lora_B.weight": (VOCABULARY, rank)}


NORMS: Shapes = {
    "base_model.model.model.layers.1.input_layernorm.weight": (WIDTH,),
    "base_model.model.model.layers.1.post_attention_layernorm.weight": (WIDTH,),
    "base_model.model.model.norm.weight": (WIDTH,),
}
ATTENTION = ("self_attn.q_proj", "self_attn.v_proj")
QWEN2: dict[str, Any] = {"architecture": "Qwen2ForCausalLM", "model_type": "qwen2"}
GEMMA: dict[str, Any] = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 32}

CASES: dict[str, Case] = {
    "llama": Case(shapes=layers(0, 1, 2, 10)),
    "llama-bf16": Case(shapes=layers(0, 1, rank=8), dtypes=("BF16", "BF16"), settings={"r": 8, "lora_alpha": 16}),
    "llama-f16": Case(shapes=layers(0), dtypes=("F16", "F16")),
    "llama-mixed": Case(shapes=layers(0), dtypes=("F16", "BF16")),
    "llama-attention": Case(shapes=layers(3, modules=ATTENTION), settings={"lora_alpha": 0.5}),
    "llama-multi-head": Case(
        config={"num_key_value_heads": None, "num_attention_heads": 2, "head_dim": 32},
        shapes=layers(0, modules=("self_attn.q_proj",)),
    ),
    "llama-embeddings": Case(shapes={**layers(0), **embeddings()}),
    "llama-embeddings-bf16": Case(shapes=embeddings(), dtypes=("BF16", "BF16")),
    "llama-head": Case(shapes={**layers(0), **head()}),
    "llama-norms": Case(shapes={**layers(0, 1), **NORMS}, dtypes=("BF16", "BF16")),
    "llama-ranks": Case(shapes={**layers(0, rank=2), **layers(1, rank=16)}, settings={"rank_pattern": {"0": 2}}),
    "llama-card": Case(shapes=layers(0), card=CARD, name="Legal-7B-v1.2"),
    "llama-alora": Case(shapes=layers(0), settings={"alora_invocation_tokens": [5, 7, 9]}),
    "mistral": Case(architecture="MistralForCausalLM", model_type="mistral", shapes=layers(0, 9)),
    "qwen2": Case(**QWEN2, shapes={**layers(0, 10), **head()}, dtypes=("BF16", "BF16")),
    "qwen2-embeddings": Case(**QWEN2, shapes={**layers(0), **embeddings()}),
    "qwen3": Case(architecture="Qwen3ForCausalLM", model_type="qwen3", shapes={**layers(0, 5), **NORMS}),
    "gemma": Case(architecture="GemmaForCausalLM", model_type="gemma", shapes={**layers(0), **head(), **NORMS}),
    "gemma2": Case(
        architecture="Gemma2ForCausalLM", model_type="gemma2", config=GEMMA, shapes={**layers(0), **head(), **NORMS}
    ),
    "gemma3": Case(
        architecture="Gemma3ForCausalLM",
        model_type="gemma3_text",
        config=GEMMA,
        shapes={**layers(0, 2), **embeddings(), **NORMS},
        dtypes=("BF16", "BF16"),
    ),
}

_DRIVER = """
import contextlib, hashlib, json, os, runpy, sys
tree, jobs = sys.argv[1], json.load(sys.stdin)
script, found = os.path.join(tree, "convert_lora_to_gguf.py"), {}
sys.path.insert(0, tree)
for title, (adapter, base, target) in jobs.items():
    sys.argv = [script, adapter, "--base", base, "--outfile", target]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            runpy.run_path(script, run_name="__main__")
        with open(target, "rb") as file:
            found[title] = hashlib.sha256(file.read()).hexdigest()
    except (Exception, SystemExit) as error:
        found[title] = f"{type(error).__name__}: {error}"
json.dump(found, sys.stdout)
"""


def run_official(python: Path, tree: Path, jobs: Mapping[str, tuple[Path, Path, Path]]) -> dict[str, str]:
    """Return the SHA-256 of the official output of each job (adapter, base, target), or the error with a colon."""
    environment = {
        "PYTHONPATH": str(tree / "gguf-py"),
        "HF_HUB_OFFLINE": "1",
        "PATH": "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    text = json.dumps({title: [str(path) for path in paths] for title, paths in jobs.items()})
    words = [str(python), "-c", _DRIVER, str(tree)]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    found: dict[str, str] = json.loads(done.stdout)
    return found


def built(folder: Path, cases: Mapping[str, Case] = CASES) -> Iterator[tuple[str, tuple[Path, Path, Path]]]:
    """Write all cases; yield each with its adapter, its base and the official target."""
    for title, case in cases.items():
        adapter, base = case.build(folder / title)
        yield title, (adapter, base, folder / title / "official.gguf")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        digests = run_official(Path(sys.argv[1]), Path(sys.argv[2]), dict(built(Path(temporary))))
    if bad := {title: found for title, found in digests.items() if ":" in found}:
        sys.exit(f"the official script failed: {json.dumps(bad, indent=1)}")
    GOLDENS.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")
