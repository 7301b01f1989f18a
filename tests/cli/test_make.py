"""Making one file, and looking into one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter

from llama_runner import Runner
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.store.digest_cache import source_stamp
from tests.conftest import Command, says
from tests.convert.checkpoints import copy_tokenizer, llama, overwrite
from tests.sources.gguf_files import split


def test_convert_makes_one_file_and_needs_no_binaries(tmp_path: Path, llama_runner: Command) -> None:
    root = tmp_path / "root"
    target = tmp_path / "mine.gguf"
    (made,) = llama_runner("convert", MODEL_DIRECTORY, "-o", target, "--root", root, "--json").json
    assert (made["ran"], Path(made["path"]).name) == (True, "model.gguf")
    assert target.read_bytes() == Path(made["path"]).read_bytes()
    assert not (root / "bins").exists()
    (again,) = llama_runner("convert", MODEL_DIRECTORY, "--root", root, "--json").json
    assert (again["ran"], again["sha256"]) == (False, made["sha256"])
    (f16,) = llama_runner("convert", MODEL_DIRECTORY, "--outtype", "f16", "--root", root, "--json").json
    assert f16["facts"]["quantization"] == "f16"
    says(llama_runner("convert", MODEL_DIRECTORY, "-o", target, "--root", root), 2, f"{target} exists")
    says(llama_runner("convert", MODEL_DIRECTORY, "-o", tmp_path / "no" / "x", "--root", root), 7)
    says(llama_runner("convert", made["path"], "--root", root), 2, "is a GGUF file already")


def test_what_is_converted_to_q8_0_and_what_is_quantized_to_it_are_two_files(root: Path, llama_runner: Command) -> None:
    (converted,) = llama_runner("convert", MODEL_DIRECTORY, "--outtype", "q8_0", "--root", root, "--json").json
    assert Path(converted["path"]).name == "model.q8_0-converted.gguf"
    assert converted["facts"]["quantization"] == "q8_0"
    quantized = llama_runner("prepare", MODEL_DIRECTORY, "-q", "q8_0", "--root", root, "--json").json
    assert quantized["model"] == str(Path(converted["path"]).with_name("model.q8_0.gguf"))
    assert Path(converted["path"]).exists()
    served = llama_runner("prepare", MODEL_DIRECTORY, "--outtype", "q8_0", "--root", root, "--json").json
    assert (served["model"], served["ran"]) == (converted["path"], [])
    words = ("prepare", MODEL_DIRECTORY, "--outtype", "q8_0", "-q", "q4_k_m", "--root", root)
    says(llama_runner(*words), 2, "the model is q8_0 already", "--allow-requantize")
    again = llama_runner(*words, "--allow-requantize", "--json").json
    assert Path(again["model"]).name.startswith("model.q8_0-converted.q4_k_m-")


def test_numbers_that_f16_cannot_hold_are_counted(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    model = tmp_path / "broken"
    model.mkdir()
    llama(model)
    copy_tokenizer(model, "byte-fallback")
    overwrite(model, "model.layers.0.mlp.up_proj.weight", [1e6, float("nan"), -1e6])
    overwrite(model, "model.layers.1.mlp.up_proj.weight", [float("nan")])
    result = llama_runner("convert", model, "--outtype", "f16", "--root", root, "--json")
    lost = result.json[0]["facts"]["not_finite"]
    assert lost == {"blk.0.ffn_up.weight": 3, "blk.1.ffn_up.weight": 1}
    told = "warning: 4 weights are infinite or NaN in f16: blk.0.ffn_up.weight (3), blk.1.ffn_up.weight (1); "
    assert told in result.err
    again = llama_runner("convert", model, "--outtype", "f16", "--root", root, "--json").json
    assert again[0]["facts"]["not_finite"] == lost, "the record has it"
    (sound,) = llama_runner("convert", model, "--outtype", "bf16", "--root", root, "--json").json
    assert "not_finite" not in sound["facts"]


def test_11_04_a_model_that_replaces_another_of_its_shape_and_time_is_converted(
    llama_runner: Command, tmp_path: Path
) -> None:
    root, model = tmp_path / "root", tmp_path / "model"
    llama(model)
    copy_tokenizer(model, "byte-fallback")

    def convert() -> dict[str, Any]:
        for path in model.iterdir():
            os.utime(path, (1, 1))
        (made,) = llama_runner("convert", model, "--root", root, "--json").json
        return dict(made)

    first = convert()
    assert not convert()["ran"]
    inode = (model / "model.safetensors").stat().st_ino
    overwrite(model, "model.layers.0.mlp.up_proj.weight", [1.5, 2.5])
    assert (model / "model.safetensors").stat().st_ino == inode
    second = convert()
    assert (second["ran"], second["sha256"] == first["sha256"]) == (True, False)


def test_11_04_records_and_digests_without_ctime_stay_valid(llama_runner: Command, tmp_path: Path) -> None:
    root, model = tmp_path / "root", shutil.copytree(MODEL_DIRECTORY, tmp_path / "model")
    (made,) = llama_runner("convert", model, "--root", root, "--json").json
    state = Path(made["path"]).with_name(".state.json")
    content = json.loads(state.read_text())
    for file, entry in content["artifacts"]["model.gguf"]["source"]["files"].items():
        entry["stamp"] = {name: value for name, value in source_stamp(model / file).items() if name != "ctime_ns"}
    state.write_text(json.dumps(content))
    (again,) = llama_runner("convert", model, "--root", root, "--json").json
    assert (again["ran"], again["path"]) == (False, made["path"])


def test_11_24_another_run_removes_what_a_killed_one_left_beside_its_output(
    llama_runner: Command, tmp_path: Path
) -> None:
    words, target = ("convert", MODEL_DIRECTORY, "--root", tmp_path / "root"), tmp_path / "out" / "m.gguf"
    target.parent.mkdir()
    (made,) = llama_runner(*words, "--json").json
    killing = (
        "import os, runpy, shutil, signal, sys\n"
        "copied = shutil.copyfile\n"
        "def copyfile(*paths):\n"
        "    copied(*paths)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "shutil.copyfile = copyfile\n"
        "runpy.run_module('llama_runner', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", killing, *map(str, words), "-o", str(target)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not target.exists()
    assert len(list(target.parent.iterdir())) == 1
    assert llama_runner(*words, "-o", target).code == 0
    assert [path.name for path in target.parent.iterdir()] == ["m.gguf"]
    assert target.read_bytes() == Path(made["path"]).read_bytes()


def test_11_07_all_files_of_a_split_model_are_copied(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    whole = Runner(root).prepare(demo=True, quantization="bf16").model
    shards = split(whole, tmp_path / "S.gguf")
    out = tmp_path / "out"
    out.mkdir()
    words = ("quantize", shards[0], "-q", "q8_0", "--keep-split", "--root", root)
    result = llama_runner(*words, "-o", out / "out.gguf", "--json")
    names = [f"out-{number:05}-of-{len(shards):05}.gguf" for number in range(1, len(shards) + 1)]
    assert sorted(path.name for path in out.iterdir()) == names
    made = Path(result.json[0]["path"])
    assert [path.read_bytes() for path in sorted(out.iterdir())] == [
        path.read_bytes() for path in sorted(made.parent.glob("*.gguf"))
    ]
    found = llama_runner("inspect", out / names[0], "--json").json
    assert (len(found["files"]), found["types"]["q8_0"] > 0) == (len(shards), True)
    for path in out.iterdir():
        path.rename(path.with_name(path.name.replace("out", "other")))
    assert llama_runner(*words, "-o", out / names[1]).code == 0, "the name of one of them stands for all"
    assert {path.name for path in out.iterdir()} > {*names}


def test_11_07_what_cannot_be_written_is_said_before_any_work(
    llama_runner: Command, tmp_path: Path, root: Path
) -> None:
    def refused(code: int, text: str, model: Path, *words: object) -> None:
        result = llama_runner(*words[:1], model, *words[1:], "--root", root)
        says(result, code, text)
        assert not list((root / "models").rglob("*.gguf")), "nothing was made"

    for name in ("S-00001-of-00002.gguf", "S-00002-of-00002.gguf"):
        writer = GGUFWriter(tmp_path / name, "llama")
        writer.add_uint16("split.count", 2)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    source, split_words = tmp_path / "S-00001-of-00002.gguf", ("quantize", "-q", "q8_0", "--keep-split", "-o")
    refused(2, f"{source} exists", source, *split_words, tmp_path / "S.gguf")
    (tmp_path / "x-00002-of-00002.gguf").mkdir()
    refused(2, "x-00002-of-00002.gguf exists", source, *split_words, tmp_path / "x.gguf")
    (tmp_path / "file").touch()
    (tmp_path / "link.gguf").symlink_to(tmp_path / "nothing")
    for output, code, text in (
        (source, 2, f"{source} exists"),
        (tmp_path / "link.gguf", 2, "link.gguf exists"),
        (tmp_path, 2, "is a directory"),
        (tmp_path / "no" / "m.gguf", 7, "no is not a directory"),
        (tmp_path / "file" / "m.gguf", 7, "file is not a directory"),
        (root / "models" / "m.gguf", 2, "is inside the store"),
        (root / ".llama_runner" / "m.gguf", 2, "is inside the store"),
    ):
        if text == "is inside the store":
            output.parent.mkdir(exist_ok=True)
        refused(code, text, MODEL_DIRECTORY, "convert", "-o", output)


def test_quantize_makes_several_at_once(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    result = llama_runner("quantize", MODEL_DIRECTORY, "-q", "q4_k_m,q8_0", "-o", out, "--root", root)
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines] == ["made", "made", "copied"]
    assert "model.q4_k_m.gguf (q4_k_m, 1.2 MiB, " in lines[0]
    assert "bits a weight" in lines[0]
    assert out.stat().st_size < 2 << 20
    assert llama_runner("quantize", out, "-q", "q8_0", "--allow-requantize", "--root", root).code == 0
    says(llama_runner("quantize", MODEL_DIRECTORY, "--root", root), 2)


def test_inspect_tells_of_a_file_what_its_header_says(root: Path, llama_runner: Command) -> None:
    prepared = Runner(root).prepare(demo=True, quantization="q8_0")
    found = llama_runner("inspect", prepared.model, "--json").json
    assert (found["format"], found["architecture"], found["context_length"]) == ("gguf", "llama", 1024)
    assert found["bytes"] == prepared.model.stat().st_size
    assert found["types"]["q8_0"] > found["types"]["f32"]
    assert 8.5 <= found["bits_per_weight"] < 9
    assert found["metadata"]["tokenizer.ggml.tokens"] == {"array": found["vocabulary"]}
    by_name = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert by_name["token_embd.weight"]["shape"][0] == found["vocabulary"]
    text = llama_runner("inspect", prepared.model, "--tensors").out
    assert "token_embd.weight" in text
    assert "8.5" in text
    assert llama_runner("inspect", prepared.model, "--template").out.strip() == found["template"].strip()


def test_inspect_tells_the_same_of_the_directory_that_it_was_made_from(llama_runner: Command) -> None:
    found = llama_runner("inspect", MODEL_DIRECTORY, "--json").json
    assert (found["format"], found["architecture"], found["context_length"]) == (
        "safetensors",
        "LlamaForCausalLM",
        1024,
    )
    assert found["parameters"] == sum(int(np.prod(tensor["shape"])) for tensor in found["tensors"])
    assert found["template"]


def test_inspect_tells_of_a_model_that_is_not_converted_here_what_it_is(llama_runner: Command, tmp_path: Path) -> None:
    model = tmp_path / "m"
    llama(
        model,
        architectures=["TomorrowForCausalLM"],
        text_config={"max_position_embeddings": 77},
        max_position_embeddings=None,
    )
    found = llama_runner("inspect", model, "--json").json
    assert (found["architecture"], found["types"]["bf16"]) == ("TomorrowForCausalLM", len(found["tensors"]))
    assert found["context_length"] == 77
    (model / "config.json").write_text('{"architectures": ["X"], "rope_theta": Infinity, "eos_token_id": [1, 2]}')
    found = llama_runner("inspect", model, "--json").json
    assert (found["metadata"]["rope_theta"], found["metadata"]["eos_token_id"]) == ("inf", {"array": 2})
    assert found["context_length"] is None
    assert "context   unknown tokens, vocabulary unknown" in llama_runner("inspect", model).out
    (model / "config.json").write_text("{}")
    says(llama_runner("inspect", model), 3, "architecture")
    shutil.rmtree(model)
    says(llama_runner("inspect", model), 3)


def test_inspect_puts_the_files_of_a_split_model_together(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    whole = Runner(root).prepare(demo=True, quantization="bf16").model
    shards = split(whole, tmp_path / "demo.gguf")
    one, several = (llama_runner("inspect", path, "--json").json for path in (whole, shards[1]))
    for same in ("parameters", "types", "vocabulary", "template", "architecture"):
        assert several[same] == one[same]
    assert len(several["files"]) == len(shards)
    shards[2].unlink()
    says(llama_runner("inspect", shards[0]), 3, "1 are missing")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model" * 100])
def test_inspect_of_something_else(llama_runner: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    says(llama_runner("inspect", tmp_path / "x.gguf"), 3, "not a usable GGUF file")
    says(llama_runner("inspect", tmp_path / "nothing"), 3, "does not exist")


def test_inspect_of_a_large_vocabulary_reads_no_token(llama_runner: Command, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", [f"token {number}" for number in range(150_000)])
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert json.loads(llama_runner("inspect", tmp_path / "x.gguf", "--json").out)["vocabulary"] == 150_000


def test_who_knows_how_a_tokenizer_splits_may_say_so(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / "odd")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": "odd+"}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    says(llama_runner("convert", model, "--root", root), 3, "unknown BPE pre-tokenizer", "--pre-tokenizer ")
    (made,) = llama_runner("convert", model, "--pre-tokenizer", "gpt-2", "--root", root, "--json").json
    found = llama_runner("inspect", made["path"], "--json").json
    assert found["metadata"]["tokenizer.ggml.pre"] == "gpt-2"
    assert llama_runner("plan", model, "--pre-tokenizer", "gpt-2", "--root", root).code == 0
    says(llama_runner("convert", model, "--pre-tokenizer", "gtp-2", "--root", root), 2, "the nearest is gpt-2")


def test_13_11_success_names_the_copy(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    target = tmp_path / "mine.gguf"
    done = llama_runner("quantize", MODEL_DIRECTORY, "-q", "q8_0", "-o", target, "--root", root)
    assert done.out.splitlines()[-1] == f"copied    {target}"
    (made,) = llama_runner("quantize", MODEL_DIRECTORY, "-q", "q8_0", "-o", f"{target}2", "--root", root, "--json").json
    assert made["copies"] == [f"{target}2"]


def test_13_11_a_trailing_slash_names_a_directory(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    words = ("quantize", "--demo", "--root", root, "-q", "q8_0", "-o")
    without = llama_runner(*words, out)
    says(without, 2, f"{out} is a directory")
    assert f"hint: a copy is put into it with a slash: --output {out}/" in without.err
    done = llama_runner(*words, f"{out}/")
    assert done.out.splitlines()[-1] == f"copied    {out / 'demo.q8_0.gguf'}"
    assert (out / "demo.q8_0.gguf").read_bytes()[:4] == b"GGUF"
    says(llama_runner(*words, f"{out}/"), 2, f"{out / 'demo.q8_0.gguf'} exists")
    llama_runner("convert", "--demo", "--root", root, "-o", f"{out}/")
    assert (out / "demo.gguf").is_file()


def test_13_11_a_missing_folder_is_said_before_the_work(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    for output in (tmp_path / "no" / "m.gguf", f"{tmp_path / 'no'}/"):
        done = llama_runner("convert", "--demo", "--root", root, "-o", output)
        says(done, 7, f"{tmp_path / 'no'} is not a directory")
        assert f"hint: make it: mkdir -p {tmp_path / 'no'}" in done.err
    assert not (root / "models").exists()


def test_13_11_no_room_for_the_copy_is_said_before_the_work(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        says(
            llama_runner("convert", "--demo", "--root", root, "-o", f"{small}/"), 7, f"needed in {small}, 64.0 KiB free"
        )
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert not (root / "models").exists()
