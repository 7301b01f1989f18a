"""An adapter is compared with its base model before anything is started."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gguf import GGUFReader, GGUFWriter

from llama_runner import Runner
from llama_runner.core.errors import ExitCode, UsageError
from llama_runner.core.events import Event, Noticed
from llama_runner.request.adapter_check import WrongBase
from tests.conftest import Command
from tests.e2e.lora import write_adapter
from tests.e2e.peft import write_peft


def model_of(root: Path) -> Path:
    return Runner(root).prepare(demo=True).model


def edited(
    path: Path,
    target: Path,
    *,
    architecture: str = "llama",
    rename: str = "",
    rows: int = 0,
    base: str = "",
    most: int = 2,
) -> Path:
    """Copy an adapter with another architecture, other names of tensors, or the name of a base."""
    writer = GGUFWriter(target, architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    writer.add_string("general.base_model.0.repo_url", base)
    for tensor in GGUFReader(path).tensors[:most]:
        data = tensor.data[:rows] if rows and tensor.name.endswith("lora_b") else tensor.data
        writer.add_tensor(tensor.name.replace("attn_q", rename or "attn_q"), data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


BASE = "https://huggingface.co/acme/Other-7B"


def test_an_adapter_of_another_shape_or_architecture_is_refused_with_both_names(root: Path, tmp_path: Path) -> None:
    fits = write_adapter(tmp_path / "fits.gguf", model_of(root), 1)
    wrong = {
        "blk.0.attn_q.weight is 7x256, not 256x256": edited(fits, tmp_path / "a.gguf", rows=7, base=BASE),
        "blk.0.attn_z.weight is not in the model": edited(fits, tmp_path / "b.gguf", rename="attn_z", base=BASE),
        "its architecture is qwen2, not llama": edited(fits, tmp_path / "c.gguf", architecture="qwen2", base=BASE),
        "it has no tensors": edited(fits, tmp_path / "d.gguf", most=0, base=BASE),
    }
    runner = Runner(root)
    runner.prepare(demo=True, lora=[fits])
    for said, path in wrong.items():
        with pytest.raises(WrongBase) as caught:
            runner.prepare(demo=True, lora=[fits, path])
        assert str(caught.value) == f"{path} is a LoRA adapter of acme/Other-7B, and does not fit Demo: {said}"
        assert caught.value.hint == "run acme/Other-7B with it"
        assert (caught.value.trained_for, caught.value.base) == ("acme/Other-7B", "Demo")


def test_the_command_ends_before_a_server_is_started(llama_runner: Command, root: Path, tmp_path: Path) -> None:
    fits = write_adapter(tmp_path / "fits.gguf", model_of(root), 1)
    wrong = edited(fits, tmp_path / "w.gguf", rows=8)
    done = llama_runner("run", "--demo", "--lora", wrong, "--port", "0", "--root", root)
    assert done.code == ExitCode.SOURCE, done
    assert "is a LoRA adapter of a model that it does not name, and does not fit Demo" in done.err
    assert llama_runner("ps", "--root", root, "--json").json == []


@pytest.mark.parametrize(
    ("base", "is_told"),
    [
        ("acme/Demo", False),
        ("unsloth/demo-bnb-4bit", False),
        ("acme/DEMO-Q4_K_M-GGUF", False),
        (None, False),
        ("acme/Demo-2", True),
        ("acme/Other-7B", True),
    ],
)
def test_a_base_of_another_name_and_the_same_shape_is_told(
    root: Path, tmp_path: Path, base: str | None, is_told: bool
) -> None:
    events: list[Event] = []
    adapter = write_peft(tmp_path / "legal", 1, base=base)
    Runner(root, on_event=events.append).prepare(demo=True, lora=[f"legal={adapter}"])
    told = [each.text for each in events if isinstance(each, Noticed) and each.what == "adapter_of_another_model"]
    assert bool(told) is is_told
    assert all(f"was trained for {base}, and is applied to Demo" in text for text in told)


def test_a_model_is_no_adapter(root: Path, tmp_path: Path) -> None:
    model = shutil.copy(model_of(root), tmp_path / "model.gguf")
    with pytest.raises(UsageError, match="is no LoRA adapter"):
        Runner(root).prepare(demo=True, lora=[model])


def test_a_peft_directory_is_converted_here_for_a_gguf_file_too_and_once(root: Path, tmp_path: Path) -> None:
    model = shutil.copy(model_of(root), tmp_path / "model.gguf")
    adapter = write_peft(tmp_path / "legal", 1)
    first = Runner(root).prepare(gguf_path=model, lora=[f"legal={adapter}:0.5"])
    assert first.ran == ("adapter",)
    again = Runner(root).prepare(demo=True, lora=[adapter])
    assert (again.ran, again.adapters) == ((), first.adapters)
    assert (first.adapter_names, first.adapter_scales) == (("legal",), (0.5,))
    write_peft(tmp_path / "legal", 2)
    assert Runner(root).prepare(demo=True, lora=[adapter]).ran == ("adapter",)


def test_a_scale_that_gguf_does_not_keep_is_told(root: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    adapter = write_peft(tmp_path / "legal", 1, use_rslora=True)
    Runner(root, on_event=events.append).prepare(demo=True, lora=[adapter])
    told = [each.text for each in events if isinstance(each, Noticed) and each.what == "adapter_scale"]
    assert told == ["legal: llama.cpp does not know use_rslora; give the square root of the rank as the scale"]


def test_what_differs_from_plain_lora_needs_the_official_script_and_a_base_as_safetensors(
    root: Path, tmp_path: Path
) -> None:
    adapter = write_peft(tmp_path / "dora", 1, use_dora=True)
    planned = Runner(root).plan(demo=True, lora=[adapter])
    assert "environment" in [step.step.kind for step in planned.plan.steps]
    with pytest.raises(UsageError, match=r"is converted with the config\.json of its base model"):
        Runner(root).plan(gguf_path=model_of(root), lora=[adapter])
