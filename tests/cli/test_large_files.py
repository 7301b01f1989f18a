"""A model whose file is large enough for a BLAKE3, through the command line."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from llama_runner.core.digest import BLAKE3_FROM
from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import Command


def large_model(directory: Path) -> Path:
    """Write a Llama of 79 MB with the tokenizer of the demo model."""
    shutil.copytree(MODEL_DIRECTORY, directory)
    (directory / "model.safetensors").unlink()
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())
    inner, width, layers = 16384, config["hidden_size"], config["num_hidden_layers"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    (directory / "config.json").write_text(
        json.dumps({**config, "intermediate_size": inner, "tie_word_embeddings": True, "torch_dtype": "float16"})
    )
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width), "model.norm.weight": (width,)}
    block = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    tensors = {name: np.full(shape, 0.25, np.float16) for name, shape in shapes.items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_a_large_file_has_a_blake3_and_its_sha256_once_it_is_asked_for(tmp_path: Path, llama_runner: Command) -> None:
    model, root = large_model(tmp_path / "large"), tmp_path / "root"
    convert = ("convert", model, "--outtype", "f16", "--root", root)
    (made,) = llama_runner(*convert, "--json").json
    assert made["bytes"] >= BLAKE3_FROM
    assert (made["ran"], made["digest"][:3], made["sha256"]) == (True, "b3:", None)
    sha256 = hashlib.sha256(Path(made["path"]).read_bytes()).hexdigest()
    asked = llama_runner(*convert, "--with-sha256")
    assert f"sha256    {sha256}" in asked.out.splitlines()
    (again,) = llama_runner(*convert, "--json").json
    assert (again["ran"], again["digest"], again["sha256"]) == (False, made["digest"], sha256)
    shown = llama_runner("models", "show", "large", "--root", root)
    assert f"sha256:{sha256}" in shown.out
    code = (  # the files of the model may be younger than two seconds: then no run before this one kept their digests
        "import sys\nfrom llama_runner import Runner\n"
        "from llama_runner.store import digest_cache\ndigest_cache.RACY_NS = 0\n"
        f"print(Runner({str(root)!r}).make({str(model)!r}, quantization='f16', outtype='f16', keep_f16=True)[0].ran)\n"
        "print([each for each in ('blake3', '_hashlib') if each in sys.modules])"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["False", "[]"]
    assert llama_runner("verify", "--root", root).code == 0
    path = Path(made["path"])
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert llama_runner("verify", "--root", root).code == 7
