"""On how many difficult lines llama.cpp gives the numbers of real tokenizers: measured, recorded, shown in the docs.

python -m tests.convert.real_results        # measures all and records; LLAMA_RUNNER_TEST_ROOT has the programs
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_runner.convert import convert
from tests.convert import real_vocabularies as real
from tests.convert.checkpoints import DATA, llama, write_json
from tests.convert.difficult import LINES
from tests.convert.gguf_file import read
from tests.convert.llama_cpp import LlamaCpp

RECORDED = DATA / "real_tokens.json"
LOOKALIKES = (
    "</s> a", "a <|endoftext|> b", "x<end_of_turn>y", "<|im_end|>\n", "<eos>", "<|eot_id|>z", "<mask> token", "a <s> b",
    "<|end|>\nc", "<pad>", "<unk> x",
)  # fmt: skip
"""Texts with names of special tokens, which a model may have as plain tokens, or not at all."""
MODELS: Mapping[str, str] = {
    "gpt2": "GPT-2",
    "llama3": "Llama 3 (first)",
    "llama3_1": "Llama 3.1",
    "qwen2_5": "Qwen 2.5",
    "deepseek_v3": "DeepSeek V3",
    "mistral_nemo": "Mistral Nemo",
    "command_r_plus": "Command R+",
    "gemma2": "Gemma 2",
    "yi": "Yi",
    "baichuan2": "Baichuan 2",
    "internlm2": "InternLM 2",
    "mistral v1": "Mistral v1",
    "mistral v2": "Mistral v2",
    "mistral v3": "Mistral v3",
}
"""Real tokenizers, each as a tokenizer.json without tokenizer.model."""
_MISTRAL = {
    "mistral v1": "tokenizer.model.v1",
    "mistral v2": "mistral_instruct_tokenizer_240216.model.v2",
    "mistral v3": "mistral_instruct_tokenizer_240323.model.v3",
}
_FIRST = 20
"""Added tokens of a model that are tried in three texts each."""


def files_of(name: str, folder: Path) -> dict[str, Any]:
    """tokenizer.json and tokenizer_config.json of a model, without a class that has Python code of its own."""
    if name in _MISTRAL:
        return real.mistral(_MISTRAL[name], folder)
    files = real.npm(name)
    settings = dict(files["tokenizer_config.json"])
    settings.pop("chat_template", None)
    if settings.pop("auto_map", None) is not None:
        settings["tokenizer_class"] = "LlamaTokenizer"
    if not files["tokenizer.json"]["added_tokens"]:  # InternLM 2 has them in its code; those of the settings are others
        settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {**files, "tokenizer_config.json": settings}


def measure(name: str, folder: Path, binaries: Path) -> dict[str, Any]:
    """Convert a tiny model with the tokenizer, and compare what the program and the library give each text."""
    from tokenizers import Tokenizer

    files = files_of(name, folder)
    document, settings = files["tokenizer.json"], files["tokenizer_config.json"]
    numbers = [*document["model"]["vocab"].values(), *(token["id"] for token in document["added_tokens"])]
    numbers += map(int, settings.get("added_tokens_decoder") or ())
    shape: dict[str, Any] = {"hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    directory = llama(folder / "model", tokenizer="", vocab_size=max(numbers) + 17, num_hidden_layers=1, **shape)
    for file, content in files.items():
        write_json(directory / file, content, indent=None)
    made = folder / "model.gguf"
    convert(directory, made, name="model", outtype="f16")
    library = Tokenizer.from_file(str(directory / "tokenizer.json"))
    added = [token["content"] for token in document["added_tokens"]][:_FIRST]
    own = [text for token in added for text in (f"{token} hello", f"hello {token} there", f"a{token}\n")]
    values = read(made).values

    def same(server: LlamaCpp, texts: list[str]) -> int:
        return sum(
            server.tokens(text, parsed=True) == library.encode(text, add_special_tokens=False).ids for text in texts
        )

    with LlamaCpp(binaries, made) as server:
        plain = sum(server.tokens(text) == library.encode(text, add_special_tokens=False).ids for text in LINES)
        return {
            "pre": values.get("tokenizer.ggml.pre", "") if values["tokenizer.ggml.model"] == "gpt2" else "",
            "lines": [plain, len(LINES)],
            "own": [same(server, own), len(own)],
            "lookalikes": [same(server, list(LOOKALIKES)), len(LOOKALIKES)],
        }


def recorded() -> dict[str, dict[str, Any]]:
    """The results of the last measurement, by name."""
    found: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


def _main() -> None:
    from tests.conftest import shared_root

    results = {}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(name, Path(folder), shared_root())
        sys.stdout.write(f"{name} {results[name]}\n")
    RECORDED.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _main()
