"""Every way to quantize that llama-quantize has, with the real one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.demo import EXAMPLES
from llama_runner.sources import quantization_types
from llama_runner.sources.quantize_options import TENSOR_TYPES, TENSORS_NEEDING_IMATRIX
from tests.conftest import Command, says
from tests.convert.checkpoints import copy_tokenizer, llama
from tests.e2e.serving import Running, ask
from tests.sources.gguf_files import split


@pytest.fixture(scope="session")
def llama_quantize(binaries: Path) -> Path:
    return Runner(binaries).prepare(demo=True).binaries / "llama-quantize"


@pytest.fixture(scope="session")
def bf16(binaries: Path) -> Path:
    return Runner(binaries).prepare(demo=True, quantization="bf16").model


def types(path: Path) -> dict[str, str]:
    """Return the type of each tensor of a file."""
    from gguf import GGUFReader

    return {tensor.name: tensor.tensor_type.name.lower() for tensor in GGUFReader(path).tensors}


def test_the_list_of_types_is_that_of_the_built_one(llama_quantize: Path) -> None:
    text = subprocess.run([llama_quantize, "--help"], check=False, capture_output=True, text=True).stdout
    listed = re.findall(r"^ +\d+ +or +(\w+) +:(?! alias)", text, re.MULTILINE)
    assert sorted({*quantization_types.QUANTIZED, *quantization_types.FLOAT}) == sorted(
        {*map(str.lower, listed), "copy"}
    )
    aliases = dict(re.findall(r"^ +\d+ +or +(\w+) +: alias for (\w+)", text, re.MULTILINE))
    assert aliases
    for alias, name in aliases.items():
        assert quantization_types.canonical_type(alias) == name.lower()


@pytest.mark.parametrize(
    "kind", [name for name in quantization_types.QUANTIZED if name not in (*quantization_types.NEEDS_IMATRIX, "copy")]
)
def test_every_type_can_be_made(root: Path, bf16: Path, kind: str) -> None:
    prepared = Runner(root).prepare(gguf_path=bf16, quantization=kind)
    assert prepared.facts["quantization"] == kind
    assert float(prepared.facts["bits_per_weight"]) > 1


def test_each_tensor_may_have_a_type_of_its_own(root: Path, llama_runner: Command, bf16: Path) -> None:
    options = ("--tensor-type", "ffn_down=q8_0", "--tensor-type", "attn_V=Q5_K", "--token-embedding-type", "q6_k")
    answer = llama_runner("prepare", "--gguf-path", bf16, "-q", "q4_k_m", *options, "--root", root, "--json").json
    found = types(Path(answer["model"]))
    assert {found[name] for name in found if "ffn_down" in name} == {"q8_0"}
    assert {found[name] for name in found if "attn_v" in name} == {"q5_k"}
    assert found["token_embd.weight"] == "q6_k"
    plain = llama_runner("prepare", "--gguf-path", bf16, "-q", "q4_k_m", "--root", root, "--json").json
    assert plain["model"] != answer["model"]
    assert Path(answer["model"]).exists(), "both are kept"
    again = llama_runner("prepare", "--gguf-path", bf16, "-q", "Q4_K", *options, "--root", root, "--json").json
    assert (again["ran"], again["model"]) == ([], answer["model"])


def test_a_plan_tells_what_it_can_of_a_file_whose_name_is_not_known_yet(root: Path, llama_runner: Command) -> None:
    before = llama_runner("plan", "--demo", "--pure", "--root", root, "--json")
    assert before.json["launch"]["argv"][2].endswith("NAME-NOT-KNOWN-YET.gguf")
    made = llama_runner("prepare", "--demo", "--pure", "--root", root, "--json").json
    after = llama_runner("plan", "--demo", "--pure", "--root", root, "--json").json
    assert after["launch"]["argv"][2] == made["model"]


def test_with_pure_all_tensors_have_one_type(root: Path, bf16: Path) -> None:
    runner = Runner(root)
    mixed = types(runner.prepare(gguf_path=bf16, quantization="q4_k_m").model)
    pure = types(runner.prepare(gguf_path=bf16, quantization="q4_k_m", pure=True).model)
    assert {"q4_k", "q6_k"} <= set(mixed.values())
    assert {pure[name] for name in mixed if mixed[name] == "q6_k" and name.startswith("blk.")} == {"q4_k"}


def test_layers_are_left_out(root: Path, bf16: Path) -> None:
    blocks = {name.split(".")[1] for name in types(bf16) if name.startswith("blk.")}
    made = Runner(root).prepare(gguf_path=bf16, quantization="q8_0", prune_layers="1, 1").model
    assert len({name.split(".")[1] for name in types(made) if name.startswith("blk.")}) == len(blocks) - 1


def test_several_quantizations_share_one_conversion(root: Path, llama_runner: Command) -> None:
    answer = llama_runner("prepare", "--demo", "-q", "q8_0,Q4_K,q8_0,f16", "--root", root, "--json").json
    assert sorted(answer["ran"]) == ["convert", "convert", "quantize", "quantize"], "one for both, and the f16 itself"
    assert Path(answer["model"]).name == "model.q8_0.gguf"
    assert [Path(path).name for path in answer["others"]] == ["model.q4_k_m.gguf", "model.f16.gguf"]
    assert all(Path(path).exists() for path in answer["others"])


def test_as_many_files_as_the_source_has(root: Path, bf16: Path, tmp_path: Path) -> None:
    shards = split(bf16, tmp_path / "demo.gguf")
    prepared = Runner(root).prepare(gguf_path=shards[0], quantization="q8_0", keep_split=True)
    assert prepared.model.name == f"model-00001-of-{len(shards):05}.gguf"
    assert len(list(prepared.model.parent.glob("*.gguf"))) == len(shards)
    one = Runner(root).prepare(gguf_path=shards[0], quantization="q8_0")
    assert one.model.is_file()
    assert one.model != prepared.model


def test_what_is_quantized_is_quantized_again_only_if_one_insists(root: Path, llama_runner: Command) -> None:
    file = Runner(root).prepare(demo=True, quantization="q8_0").model
    words = ("prepare", "--gguf-path", file, "-q", "q4_k_m", "--root", root)
    says(llama_runner(*words), 2, "the model is q8_0 already", "--allow-requantize")
    assert llama_runner(*words, "--allow-requantize", "--json").json["ran"] == ["quantize"]


def test_a_32_bit_file_becomes_a_16_bit_one(root: Path) -> None:
    runner = Runner(root)
    f32 = runner.prepare(demo=True, quantization="f32").model
    made = runner.prepare(gguf_path=f32, quantization="f16")
    assert made.facts["quantization"] == "f16"


def test_rows_that_a_type_cannot_hold_are_told(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    model = tmp_path / "narrow"
    model.mkdir()
    llama(model)  # rows of 32 and 40 numbers, where q4_k_m wants 256
    copy_tokenizer(model, "byte-fallback")
    result = llama_runner("prepare", "--safetensors-dir", model, "-q", "q4_k_m", "--root", root)
    assert result.code == 0, result
    assert "tensors have rows that q4_k_m cannot hold" in result.err


TEXT = "\n".join(f"{question} {answer}" for question, answer in EXAMPLES) * 3


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "calibration text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_pain_15_an_importance_matrix_is_made_once_from_a_text_and_used(
    root: Path, llama_runner: Command, text: Path, children: list[subprocess.Popen[str]]
) -> None:
    words = ("--demo", "--calibration", text, "--calibration-chunks", "2", "--root", root)
    first = llama_runner("prepare", *words, "-q", "iq3_s", "--json").json
    assert first["ran"] == ["convert", "imatrix", "quantize"]
    second = llama_runner("prepare", *words, "-q", "iq4_xs,iq2_xxs", "--json").json
    assert sorted(second["ran"]) == ["convert", "quantize", "quantize"], "the matrix is there already"
    assert llama_runner("prepare", *words, "-q", "iq3_s", "--json").json["ran"] == []
    text.write_text(TEXT + "more", encoding="utf-8")
    again = llama_runner("prepare", *words, "-q", "iq3_s", "--json").json
    assert again["ran"] == ["convert", "imatrix"], "what was read of it is the same, and so is the matrix"
    text.write_text("More! " + TEXT, encoding="utf-8")
    assert llama_runner("prepare", *words, "-q", "iq3_s", "--json").json["ran"] == ["convert", "imatrix", "quantize"]
    (matrix, *_) = (root / "models" / "gguf").glob("*/imatrix-*.gguf")
    plain = llama_runner("prepare", "--demo", "--imatrix", matrix, "-q", "iq3_s", "--root", root, "--json").json
    assert "imatrix" not in plain["ran"]
    for path in (matrix, Path(first["model"])):
        assert str(root).encode() not in path.read_bytes(), "no path of this machine is in a file that may travel"
    running = Running(children, "--demo", "--imatrix", matrix, "-q", "iq4_xs", "--root", root)
    assert ask(running.url, "what is a step?")


def test_a_calibration_text_that_is_too_short_is_an_error(root: Path, llama_runner: Command, text: Path) -> None:
    text.write_text("short", encoding="utf-8")
    result = llama_runner("prepare", "--demo", "--calibration", text, "-q", "iq3_xxs", "--root", root)
    says(result, 3, "is too short: at least 1024 tokens are needed")


def test_a_file_that_is_no_importance_matrix(root: Path, llama_runner: Command, text: Path) -> None:
    result = llama_runner("prepare", "--demo", "--imatrix", text, "-q", "iq3_xxs", "--root", root)
    assert result.code == 6, result
    missing = llama_runner("prepare", "--demo", "--imatrix", text / "x", "-q", "iq3_xxs", "--root", root)
    says(missing, 3, "does not exist")


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (("-q", "q4_k_m", "--tensor-type", "attn_q"), ("--tensor-type attn_q", "write NAME=TYPE")),
        (("-q", "q4_k_m", "--tensor-type", "attn_q=q4_k_m"), ("no tensor type called 'q4_k_m'",)),
        (("-q", "q4_k_m", "--tensor-type", "a(=q8_0"), ("no regular expression",)),
        (("-q", "q4_k_m", "--output-tensor-type", "x"), ("no tensor type called 'x'",)),
        (("-q", "q4_k_m", "--prune-layers", "a"), ("not a list of numbers",)),
        (("-q", "f16", "--pure"), ("--pure is about quantizing",)),
        (("-q", "q4_k_m,nonsense"), ("no quantization called 'nonsense'",)),
        (("-q", "q8_0", "--tensor-type", "ffn_up=iq1_s"), ("tensors in iq1_s need an importance matrix",)),
        (("-q", "q8_0", "--imatrix", "a", "--calibration", "b"), ("both --imatrix and --calibration are given",)),
        (("-q", "iq1_s"), ("iq1_s needs an importance matrix", "--imatrix FILE")),
    ],
)
def test_quantize_options_that_contradict_each_other_are_errors(
    root: Path, llama_runner: Command, options: tuple[str, ...], texts: tuple[str, ...]
) -> None:
    says(llama_runner("prepare", "--demo", *options, "--root", root), 2, *texts)


def test_every_tensor_type_is_one_that_ggml_knows(root: Path, bf16: Path) -> None:
    runner = Runner(root)
    for kind in TENSOR_TYPES:
        if kind not in TENSORS_NEEDING_IMATRIX:
            runner.prepare(gguf_path=bf16, quantization="q8_0", tensor_types=[f"blk.0.ffn_up={kind}"])
