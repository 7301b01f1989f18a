"""What a trainer leaves behind: an adapter without its model, a checkpoint without a tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import Command, says
from tests.e2e.lora import write_adapter


@pytest.mark.parametrize("words", [("{}",), ("--safetensors-dir", "{}")])
def test_13_10_an_adapter_directory_as_model_names_its_base(
    tmp_path: Path, llama_runner: Command, words: tuple[str, ...]
) -> None:
    adapter = tmp_path / "checkpoint-500"
    adapter.mkdir()
    shutil.copy(MODEL_DIRECTORY / "tokenizer.json", adapter)
    settings = adapter / "adapter_config.json"
    for value, base, runs in (
        ({"base_model_name_or_path": "Qwen/Qwen3-0.6B"}, " of Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ({}, ", and names no base model", "MODEL"),
        ([], ", and names no base model", "MODEL"),
    ):
        settings.write_text(json.dumps(value))
        done = llama_runner("run", *(word.format(adapter) for word in words), "--root", tmp_path / "root")
        says(done, 3, f"{adapter} is a LoRA adapter{base}")
        assert f"hint: run {runs} --lora {adapter}\n" in done.err
    assert not (tmp_path / "root" / "models").exists()


def test_13_10_an_adapter_as_gguf_is_no_model_either(root: Path, tmp_path: Path, llama_runner: Command) -> None:
    adapter = write_adapter(tmp_path / "a.gguf", Runner(root).prepare(demo=True).model, 1)
    done = llama_runner("run", adapter, "--root", root)
    says(done, 3, f"{adapter} is a LoRA adapter, and names no base model")
    assert llama_runner("inspect", adapter).code == 0


def test_13_10_a_merged_model_that_has_its_adapter_s_settings_is_a_model(tmp_path: Path, llama_runner: Command) -> None:
    model = tmp_path / "merged"
    shutil.copytree(MODEL_DIRECTORY, model)
    (model / "adapter_config.json").write_text("{}")
    assert llama_runner("plan", model, "--root", tmp_path / "root").code == 0


def test_13_10_a_model_without_a_tokenizer_says_how_to_save_one(tmp_path: Path, llama_runner: Command) -> None:
    model = tmp_path / "checkpoint-500"
    shutil.copytree(MODEL_DIRECTORY, model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    done = llama_runner("plan", model, "--root", tmp_path / "root")
    says(done, 3, f"no tokenizer in {model}")
    assert f'hint: save it there: tokenizer.save_pretrained("{model}")' in done.err


def test_13_10_an_adapter_with_empty_weights_is_refused_before_any_work(
    root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base", "r": 8, "lora_alpha": 16}')
    for content, said in ((b"", "only 0 bytes long"), (b"\x02" + b"\0" * 7 + b"{}", "it has no tensors")):
        (adapter / "adapter_model.safetensors").write_bytes(content)
        for command in ("plan", "run"):
            says(llama_runner(command, "--demo", "--lora", adapter, "--root", root), 3, said)
    assert not (root / "vendor").exists()
