"""Projectors of vision models (mmproj): the official script's bytes, what it gets wrong, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest

from llama_runner.convert import convert, inspect
from llama_runner.convert.choose_converter import NoProjector, choose_converter
from llama_runner.convert.errors import (
    BadHyperparameter,
    BadVocabulary,
    MissingFile,
    UnreadableFile,
    UnsupportedOption,
)
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.projectors import PROJECTORS as NATIVE
from llama_runner.core.errors import ExitCode, SourceError
from llama_runner.sources.local import LocalSafetensors
from llama_runner.steps.convert_projector import ConvertProjector
from tests.convert.checkpoints import edit_json, numbers, write_raw
from tests.convert.official import PROJECTORS, recorded, run_official
from tests.convert.projectors import CASES, IMAGES, VISION

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY = [f"{title}/{outtype}" for title, case in CASES.items() for outtype in case.outtypes]
PYTHON, TREE = (os.environ.get(f"LLAMA_RUNNER_REFERENCE_{name}") for name in ("PYTHON", "TREE"))


def made(model: Path, target: Path, outtype: str = "auto", name: str = "tiny") -> str:
    """Return the SHA-256 of the projector of a model."""
    target.unlink(missing_ok=True)
    done = convert(model, target, name=name, outtype=outtype, projector=True)  # type: ignore[arg-type]
    found = hashlib.sha256(target.read_bytes()).hexdigest()
    assert done.sha256 in (found, None), "a large file has a BLAKE3"
    return found


def test_every_case_has_a_golden_of_the_official_script() -> None:
    assert sorted(recorded(PROJECTORS)) == sorted(EVERY)


def test_every_native_projector_has_cases(tmp_path: Path) -> None:
    found = set()
    for title, case in CASES.items():
        case.build(tmp_path / title)
        found.add(json.loads((tmp_path / title / "config.json").read_text())["architectures"][0])
    assert found == set(NATIVE)


@pytest.mark.parametrize("key", EVERY)
def test_a_projector_is_the_official_one(key: str, tmp_path: Path) -> None:
    title, outtype = key.split("/")
    case = CASES[title]
    case.build(tmp_path / "staging")
    assert made(tmp_path / "staging", tmp_path / "out.gguf", outtype, case.name) == recorded(PROJECTORS)[key]


@pytest.mark.slow
@pytest.mark.skipif(
    not (PYTHON and TREE), reason="LLAMA_RUNNER_REFERENCE_PYTHON and LLAMA_RUNNER_REFERENCE_TREE are not set"
)
def test_the_official_script_gives_the_goldens_today(tmp_path: Path) -> None:
    assert PYTHON
    assert TREE
    assert run_official(Path(PYTHON), Path(TREE), tmp_path, CASES) == recorded(PROJECTORS)


def renamed(model: Path, change: Callable[[str], str]) -> None:
    """Give the tensors of a checkpoint in one file other names; their bytes stay."""
    path = model / "model.safetensors"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    del header["__metadata__"]
    write_raw(path, json.dumps({change(name): entry for name, entry in header.items()}).encode(), content[end:])


def as_transformers_5(name: str) -> str:
    inner = name.removeprefix("language_model.").removeprefix("model.")
    return name if name.startswith(("lm_head", "model.visual")) else f"model.{inner}"


@pytest.mark.parametrize("title", ["gemma3", "pixtral", "mistral3", "qwen2vl", "qwen25vl"])
def test_names_of_tensors_with_the_prefix_of_newer_checkpoints_give_the_same_file(title: str, tmp_path: Path) -> None:
    """The official script of the pinned tree makes a file without any tensor of these."""
    CASES[title].build(tmp_path / "model")
    renamed(tmp_path / "model", as_transformers_5)
    assert made(tmp_path / "model", tmp_path / "out.gguf") == recorded(PROJECTORS)[f"{title}/auto"]


@pytest.mark.parametrize("prefix", ["language_model.", "model.language_"])
def test_the_row_of_img_break_is_in_the_projector_of_a_pixtral_as_it_is_published(prefix: str, tmp_path: Path) -> None:
    """The official script leaves it out where the name begins with language_model, and llama-server needs it."""
    CASES["pixtral"].build(tmp_path / "model")
    renamed(tmp_path / "model", lambda name: name.replace("model.embed_tokens", f"{prefix}model.embed_tokens"))
    assert made(tmp_path / "model", tmp_path / "out.gguf") == recorded(PROJECTORS)["pixtral/auto"]
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    row = numbers("model.embed_tokens.weight", (336, 64))[12].astype("<f4").view("<u4") & 0xFFFF0000
    assert np.array_equal(found["v.token_embd.img_break"].data.view("<u4"), row)


def test_a_quantized_text_part_makes_no_difference(tmp_path: Path) -> None:
    CASES["gemma3"].build(tmp_path / "model")
    edit_json(tmp_path / "model" / "config.json", quantization_config={"quant_method": "fp8"})
    path = tmp_path / "model" / "model.safetensors"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:end]), content[end:]
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    header[name] = {"dtype": "F8_E4M3", "shape": [4, 4], "data_offsets": [len(data), len(data) + 16]}
    write_raw(path, json.dumps(header).encode(), data + bytes(16))
    assert made(tmp_path / "model", tmp_path / "out.gguf") == recorded(PROJECTORS)["gemma3/auto"]


def test_what_is_known_of_a_projector_is_of_its_own_tensors(tmp_path: Path) -> None:
    CASES["idefics3-f16"].build(tmp_path / "model")
    found = inspect(tmp_path / "model", projector=True)
    assert (found.family, found.dtype, found.context_length) == ("clip", "F16", None)
    assert not any("embed_tokens" in tensor.name or "lm_head" in tensor.name for tensor in found.tensors)


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda model: edit_json(model / "config.json", **changes)


def vision(**changes: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        found = json.loads((model / "config.json").read_text())["vision_config"]
        edit_json(model / "config.json", vision_config={**found, **changes})

    return change


def images(**changes: Any) -> Callable[[Path], None]:
    return lambda model: edit_json(model / "preprocessor_config.json", **changes)


def tensor(name: str, other: str) -> Callable[[Path], None]:
    return lambda model: renamed(model, lambda found: other if found == name else found)


def ending_rows(number: int) -> Callable[[Path], None]:
    return lambda model: edit_json(model / "tokenizer.json", added_tokens=[{"content": "[IMG_BREAK]", "id": number}])


def nothing_left(model: Path) -> None:
    renamed(model, lambda name: f"language_model.{name}")


PATCH = "vision_tower.vision_model.embeddings.patch_embedding.weight"
BAD: dict[str, tuple[str, Callable[[Path], object], type[SourceError], str]] = {
    "no preprocessor": (
        "gemma3", lambda model: (model / "preprocessor_config.json").unlink(), MissingFile,
        "preprocessor_config.json is missing, needed for the projector",
    ),
    "no mean": ("gemma3", images(image_mean=None), UnreadableFile, "image_mean is missing"),
    "mean of one color": ("qwen2vl", images(image_mean=[0.5]), UnreadableFile, "image_mean is .* three numbers"),
    "mean of texts": ("pixtral", images(image_std=["a", "b", "c"]), UnreadableFile, "image_std is .* three numbers"),
    "mean without end": ("pixtral", images(image_std=[float("inf"), 1, 1]), UnreadableFile, "image_std is .* three"),
    "preprocessor is a list": (
        "gemma3", lambda model: (model / "preprocessor_config.json").write_text("[]"), UnreadableFile, "JSON object",
    ),
    "tokens of an image": ("gemma3", images(image_seq_length=0), UnreadableFile, "image_seq_length is 0"),
    "no tokens of an image": ("gemma3", images(image_seq_length="x"), UnreadableFile, "image_seq_length is 'x'"),
    "longest edge": ("idefics3", images(size={"longest_edge": -1}), UnreadableFile, "size is"),
    "size is no object": ("idefics3", images(size=364), UnreadableFile, "size is 364"),
    "a tensor is missing": (
        "gemma3", tensor(PATCH, "language_model.x"), SourceError, r"tensors are missing: v\.patch_embd",
    ),
    "a tensor is unknown": ("gemma3", tensor(PATCH, f"{PATCH}.lora"), SourceError, "does not know: vision_tower"),
    "no tensor": ("gemma3", nothing_left, SourceError, "the weights have no vision part"),
    "a merger too many": (
        "qwen3vl", vision(deepstack_visual_indexes=[]), SourceError, "does not know: model.visual.deepstack_merger",
    ),
    "a shape": ("gemma3", vision(patch_size=8), SourceError, "patch_embedding.weight has shape"),
    "a width": ("qwen25vl", vision(out_hidden_size=96), SourceError, r"merger\.mlp\.2.* has shape"),
    "kind of model": ("gemma3", config(model_type="other"), SourceError, "no projector is converted here for Gemma3"),
    "kind of encoder": ("pixtral", vision(model_type="clip_vision_model"), SourceError, "no projector is converted"),
    "no encoder": ("qwen2vl", config(vision_config=7), SourceError, "no projector is converted here"),
    "no layers": ("idefics3", vision(num_hidden_layers=0), BadHyperparameter, "num_hidden_layers"),
    "too many layers": ("idefics3", vision(num_hidden_layers=10**9), BadHyperparameter, "num_hidden_layers"),
    "a text for a number": ("pixtral", vision(hidden_size="32"), BadHyperparameter, "hidden_size is '32'"),
    "a list for a number": ("gemma3", vision(image_size=[32, 32]), BadHyperparameter, "image_size is"),
    "no number of positions": ("qwen3vl", vision(num_position_embeddings=None), SourceError, "num_position_embeddings"),
    "blocks with a merger": ("qwen3vl", vision(deepstack_visual_indexes=[9]), BadHyperparameter, "deepstack_visual"),
    "a block with two mergers": ("qwen3vl", vision(deepstack_visual_indexes=[1, 1]), BadHyperparameter, "different"),
    "blocks without end": ("qwen3vl", vision(deepstack_visual_indexes=[1] * 10**6), BadHyperparameter, "deepstack"),
    "no list of blocks": ("qwen3vl", vision(deepstack_visual_indexes=1), BadHyperparameter, "is 1, a list of"),
    "no depth at all": ("qwen35", vision(depth=None), BadHyperparameter, "num_hidden_layers"),
    "no depth": ("qwen3vl", vision(depth="x"), BadHyperparameter, "deepstack_visual_indexes is"),
    "ratio without end": ("qwen2vl", vision(mlp_ratio=1e999), SourceError, r"config\.json"),
    "blocks that see all": ("qwen25vl", vision(fullatt_block_indexes=7), BadHyperparameter, "fullatt_block_indexes"),
    "uneven blocks that see all": (
        "qwen25vl", vision(fullatt_block_indexes=[1, 2]), UnsupportedOption, "fullatt_block_indexes is",
    ),
    "another window": ("qwen25vl", vision(window_size=64), UnsupportedOption, "window_size of the vision part is 64"),
    "three frames": ("qwen2vl", vision(temporal_patch_size=3), UnsupportedOption, "temporal_patch_size"),
    "merged by three": ("qwen2vl", vision(spatial_merge_size=3), UnsupportedOption, "spatial_merge_size"),
    "activation": ("pixtral", vision(hidden_act="tanh"), UnsupportedOption, "hidden_act of the vision part is 'tanh'"),
    "another layer": ("pixtral", config(vision_feature_layer=-2), UnsupportedOption, "vision_feature_layer"),
    "another theta": ("pixtral", vision(rope_parameters={"rope_theta": 5.0}), UnsupportedOption, "rope_theta"),
    "no token": (
        "pixtral", lambda model: (model / "tokenizer.json").write_text("{}"), BadVocabulary, r"no token \[IMG_BREAK\]",
    ),
    "the token of another tokenizer": (
        "pixtral", ending_rows(900), BadVocabulary, "is token 900, the embedding has 336",
    ),
    "the first token": (
        "pixtral", ending_rows(0), BadVocabulary, "is token 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_an_error_with_a_way_out_and_no_file_is_left(what: str, tmp_path: Path) -> None:
    title, change, kind, match = BAD[what]
    model, target = tmp_path / "model", tmp_path / "out.gguf"
    CASES[title].build(model)
    change(model)
    with pytest.raises(kind, match=match) as caught:
        made(model, target)
    assert caught.value.hint
    assert caught.value.code == ExitCode.SOURCE
    assert not target.exists()


@pytest.mark.parametrize(
    "title", ["gemma3", "idefics3", "smolvlm", "pixtral", "mistral3", "qwen2vl", "qwen25vl", "qwen3vl"]
)
def test_the_native_converter_is_chosen_for_the_projector_whoever_converts_the_text_part(
    title: str, tmp_path: Path
) -> None:
    CASES[title].build(tmp_path / "model")
    source = ModelDirectory(tmp_path / "model")
    assert choose_converter(source, projector=True).native_projector
    assert not choose_converter(source, "official", projector=True).native_projector
    assert not choose_converter(source).native_projector


@pytest.mark.parametrize(
    "change",
    [
        vision(architectures=["InternVisionModel"]),
        config(model_type="video_llava"),
        config(llm_config={}),
        config(architectures=["Gemma3nForConditionalGeneration"]),
    ],
    ids=["an encoder with a name", "another model", "another text part", "another architecture"],
)
def test_other_projectors_are_left_to_the_official_script(change: Callable[[Path], None], tmp_path: Path) -> None:
    CASES["pixtral"].build(tmp_path / "model")
    change(tmp_path / "model")
    assert not choose_converter(ModelDirectory(tmp_path / "model"), projector=True).native_projector


def test_a_model_that_does_not_say_how_images_are_prepared_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    CASES["gemma3"].build(tmp_path / "model")
    source = ModelDirectory(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    with pytest.raises(MissingFile, match=r"preprocessor_config\.json is missing") as caught:
        choose_converter(source, projector=True)
    assert "leave --mmproj out" in str(caught.value.hint)
    choose_converter(source, projector=True, has=lambda name: name == "processor_config.json")


@pytest.mark.parametrize("converter", ["auto", "official"])
def test_a_llava_with_another_encoder_than_pixtral_s_is_refused_before_anything_is_installed(
    converter: Any, tmp_path: Path
) -> None:
    CASES["pixtral"].build(tmp_path / "model")
    vision(model_type="clip_vision_model")(tmp_path / "model")
    with pytest.raises(NoProjector, match="LlavaForConditionalGeneration with the encoder clip_vision_model") as caught:
        choose_converter(ModelDirectory(tmp_path / "model"), converter, projector=True)
    assert "-- --mmproj FILE" in str(caught.value.hint)


def test_a_text_model_has_no_projector(tmp_path: Path) -> None:
    CASES["gemma3"].build(tmp_path / "model")
    shutil.copyfile(tmp_path / "model" / "config.json", tmp_path / "config.json")
    edit_json(tmp_path / "config.json", architectures=["Gemma3ForCausalLM"], model_type="gemma3_text")
    with pytest.raises(NoProjector, match="Gemma3ForCausalLM"):
        choose_converter(ModelDirectory(tmp_path), projector=True)


def test_numbers_too_large_for_f16_are_counted(tmp_path: Path) -> None:
    CASES["gemma3-f32"].build(tmp_path / "model")
    done = convert(tmp_path / "model", tmp_path / "out.gguf", name="tiny", outtype="f16", projector=True)
    assert set(done.not_finite) == {"v.blk.0.ffn_up.weight"}
    assert (
        VISION["hidden_size"]
        == gguf.GGUFReader(tmp_path / "out.gguf").fields["clip.vision.embedding_length"].contents()
    )
    assert IMAGES["image_mean"][0] == pytest.approx(
        gguf.GGUFReader(tmp_path / "out.gguf").fields["clip.vision.image_mean"].contents()[0]
    )


def test_a_projector_needs_no_more_room_than_its_model_or_two_gigabytes() -> None:
    model = LocalSafetensors(Path("/model"), "model")
    room = [ConvertProjector(model, "model", "bf16", each << 20).estimate().disk >> 20 for each in (0, 300, 100_000)]
    assert room == [0, 300, 2048]
