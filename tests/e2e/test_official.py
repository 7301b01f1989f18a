"""What is not converted here goes through llama.cpp's own script, and is served as everything else is."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from llama_runner.demo import MODEL_DIRECTORY
from tests.e2e.official_environment import environment, root, vendor
from tests.e2e.serving import Running, request

if TYPE_CHECKING:
    from tests.conftest import Command
    from tests.fakehub.hub import Hub

__all__ = ["environment", "root", "vendor"]

DATA = Path(__file__).parents[1] / "data" / "convert"
CODE = "open({marker!r}, 'w').close()\nraise SystemExit('the code of the model was run')\n"


@pytest.fixture(scope="module")
def unknown(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of tiny random models that are not converted here."""
    folder = tmp_path_factory.mktemp("unknown")
    argv: list[str | Path] = [environment / "bin" / "python", "-I", "-B", DATA / "make_unknown.py", folder]
    subprocess.run(argv, check=True, capture_output=True, env={"PATH": "", "HF_HUB_OFFLINE": "1"})
    return folder


def answers(url: str) -> bool:
    # what a random model says may be no text, and a server answers 500 then
    body = {"prompt": [5, 6, 7], "n_predict": 1, "temperature": 0, "grammar": "root ::= [a-z]+"}
    return request(url, "/completion", body)[0] == 200


def end(run: Running) -> None:
    run.process.terminate()
    run.finish()


@pytest.mark.parametrize("name", ["state-space", "alibi"])
def test_an_architecture_that_is_not_known_here_is_converted_quantized_and_served(
    root: Path, unknown: Path, children: list[subprocess.Popen[str]], name: str
) -> None:
    run = Running(children, unknown / name, "--root", root, "-q", "q4_k_m")
    assert answers(run.url)
    said = [event["text"] for event in run.of("noticed") if event["what"] == "official_converter"]
    assert len(said) == 1
    assert "ForCausalLM is not converted here" in said[0]
    assert [event["step"] for event in run.of("step_finished")] == ["convert", "quantize"]
    end(run)
    again = Running(children, unknown / name, "--root", root, "-q", "q4_k_m")
    assert not again.of("step_started")
    assert not again.of("noticed")
    end(again)


def test_a_model_that_sees_is_served_with_a_projector_made_of_its_weights(
    root: Path, unknown: Path, children: list[subprocess.Popen[str]], llama_runner: Command
) -> None:
    run = Running(children, unknown / "seeing", "--mmproj", "--root", root, "-q", "q8_0")
    assert sorted(event["step"] for event in run.of("step_finished")) == ["convert", "projector", "quantize"]
    assert request(run.url, "/props")[1]["modalities"]["vision"]
    assert answers(run.url)
    end(run)
    made = llama_runner("convert", unknown / "seeing", "--mmproj", "--root", root, "--json")
    assert [Path(one["path"]).name for one in made.json] == ["model.gguf", "mmproj-model.gguf"], made


def test_the_text_part_and_the_projector_of_a_model_that_sees_come_out_the_same(
    root: Path, unknown: Path, llama_runner: Command
) -> None:
    words = ("convert", unknown / "seeing", "--mmproj", "--root", root, "--json")
    ours = llama_runner(*words)
    official = llama_runner(*words, "--converter", "official")
    assert [one["ran"] for one in official.json] == [True, True], official
    assert [one["sha256"] for one in official.json] == [one["sha256"] for one in ours.json]


def test_a_model_on_the_hub_that_is_not_known_here_is_converted_and_its_code_is_not_fetched(
    hub: Hub, root: Path, unknown: Path, tmp_path: Path, llama_runner: Command
) -> None:
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    hub.repo("acme/alibi", {path.name: path for path in (unknown / "alibi").iterdir()} | {"evil.py": b"raise"})
    words = ("prepare", "acme/alibi", "--root", root, "-q", "q8_0", "--json")
    done = llama_runner(*words, env=env)
    assert done.json["ran"] == ["download", "convert", "quantize"], done
    asked = [request.path for request in hub.requests]
    assert any(path.endswith("model.safetensors") for path in asked)
    assert not [path for path in asked if path.endswith("evil.py")]
    hub.reset_log()
    assert llama_runner(*words, env=env).json["ran"] == []
    assert not hub.requests


def test_what_both_convert_comes_out_the_same(root: Path, llama_runner: Command) -> None:
    words = ("convert", "--demo", "--root", root, "--outtype", "f16", "--json")
    ours = llama_runner(*words)
    official = llama_runner(*words, "--converter", "official")
    assert official.json[0]["ran"], official
    assert official.json[0]["sha256"] == ours.json[0]["sha256"]


def lora(folder: Path) -> Path:
    """Write a PEFT adapter for the demo model: one matrix of rank 2."""
    folder.mkdir()
    config = json.loads((MODEL_DIRECTORY / "config.json").read_text())
    size = config["hidden_size"]
    heads = size // config["num_attention_heads"] * config["num_attention_heads"]
    at = "base_model.model.model.layers.0.self_attn.q_proj.lora"
    numbers = np.random.RandomState(0).standard_normal
    tensors: dict[str, Any] = {
        f"{at}_A.weight": numbers((2, size)).astype("f4"),
        f"{at}_B.weight": numbers((heads, 2)).astype("f4"),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


HOLES: dict[str, Any] = {
    "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None,
    "post_processor": None, "decoder": None,
    "added_tokens": [
        {"id": number, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for text, number in (("z", 12), ("<a>", 13), ("<b>", 14))
    ],
    "model": {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "fuse_unk": False,
        "end_of_word_suffix": None, "byte_fallback": False, "ignore_merges": False, "merges": [],
        "vocab": {**{text: number for number, text in enumerate("abcdefgh")}, "z": 12},
    },
}  # fmt: skip
"""Added tokens as Phi-4-mini has them: the first is in the vocabulary, beyond a hole."""


def test_17_04_the_script_s_environment_numbers_added_tokens_as_tokenizer_json_does(
    vendor: Path, environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(HOLES), encoding="utf-8")
    look = "import json, sys, tokenizers\nprint(json.dumps(tokenizers.Tokenizer.from_file(sys.argv[1]).get_vocab()))\n"
    python = vendor / environment.name / "bin" / "python"
    argv: list[str | Path] = [python, "-I", "-B", "-c", look, tmp_path / "tokenizer.json"]
    found = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert {text: found[text] for text in ("z", "<a>", "<b>")} == {"z": 12, "<a>": 13, "<b>": 14}


def test_17_05_a_tokenizer_that_transformers_5_saved_is_converted_by_the_script_too(
    root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    """As a copy of the demo model with tokenizer files of version 5: here and there come out the same tokens."""
    model = tmp_path / "demo"
    shutil.copytree(MODEL_DIRECTORY, model)
    (model / "special_tokens_map.json").unlink()
    old = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    kept = {key: old[key] for key in ("bos_token", "eos_token", "chat_template") if key in old}
    settings = {**kept, "backend": "tokenizers", "tokenizer_class": "TokenizersBackend"}
    settings["extra_special_tokens"] = ["<|start_header_id|>"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    made = {}
    for converter in ("native", "official"):
        done = llama_runner("convert", model, "--converter", converter, "--root", root, "--json")
        assert done.code == 0, done.err
        made[converter] = Path(done.json[0]["path"]).read_bytes()
    assert made["native"] == made["official"]


def test_a_lora_adapter_is_converted_and_served_and_its_file_serves_as_it_lies(
    root: Path, environment: Path, tmp_path: Path, children: list[subprocess.Popen[str]]
) -> None:
    assert environment
    adapter = lora(tmp_path / "my adapter")
    run = Running(children, "--demo", "--lora", adapter, "--root", root)
    assert "adapter" in [event["step"] for event in run.of("step_finished")]
    (listed,) = request(run.url, "/lora-adapters")[1]
    end(run)
    again = Running(children, "--demo", "--lora", listed["path"], "--root", root)
    assert not again.of("step_started")
    assert request(again.url, "/lora-adapters")[1] == [listed]
    end(again)


@pytest.fixture
def hostile(tmp_path: Path, unknown: Path) -> tuple[Path, Path]:
    """Return a model whose tokenizer is Python code of its own, and the file that this code would write."""
    model, marker = tmp_path / "hostile", tmp_path / "it was run"
    shutil.copytree(unknown / "state-space", model)
    settings = model / "tokenizer_config.json"
    own = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | own))
    (model / "evil.py").write_text(CODE.format(marker=str(marker)))
    return model, marker


def test_code_of_a_model_is_not_run(root: Path, hostile: tuple[Path, Path], llama_runner: Command) -> None:
    model, marker = hostile
    done = llama_runner("prepare", model, "--root", root)
    assert done.code == 3, done
    assert "the model cannot be converted without running its own Python code" in done.err
    assert "--trust-remote-code" in done.err
    assert not marker.exists()


def test_code_of_a_model_is_run_when_that_is_asked_for(
    root: Path, hostile: tuple[Path, Path], llama_runner: Command
) -> None:
    model, marker = hostile
    done = llama_runner("prepare", model, "--root", root, "--trust-remote-code")
    assert "the code of the model was run" in done.err
    assert marker.exists()


def test_what_nobody_converts_is_told_at_once(unknown: Path, tmp_path: Path, llama_runner: Command) -> None:
    shutil.copytree(unknown / "alibi", tmp_path / "new")
    config = tmp_path / "new" / "config.json"
    config.write_text(config.read_text().replace("BloomForCausalLM", "Bloom9ForCausalLM"))
    done = llama_runner("plan", tmp_path / "new", "--root", tmp_path)
    assert done.code == 3, done
    assert "unsupported architecture: Bloom9ForCausalLM; llama.cpp's own script does not know it either" in done.err
    assert "BloomForCausalLM" in done.err
    native = llama_runner("plan", unknown / "alibi", "--converter", "native", "--root", tmp_path)
    assert native.code == 3, native
    assert "unsupported architecture: BloomForCausalLM" in native.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--demo", "--mmproj"), "no projector can be made of LlamaForCausalLM"),
        (("{gguf}", "--mmproj"), "no projector can be made of {gguf}, a GGUF file"),
        (("--demo", "--lora", "{gguf}"), "{gguf} is no LoRA adapter"),
        (("--demo", "--lora", "nowhere"), "nowhere does not exist"),
        (("--demo", "--lora", "{empty}"), "adapter_config.json is missing, needed for the adapter's settings"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_done(
    binaries: Path, tmp_path: Path, llama_runner: Command, words: tuple[str, ...], said: str
) -> None:
    gguf = min((binaries / "models" / "gguf").glob("local__demo__*/model.q4_k_m.gguf"))
    (tmp_path / "empty").mkdir()
    paths = {"gguf": gguf, "adapter": lora(tmp_path / "an adapter"), "empty": tmp_path / "empty"}
    done = llama_runner("plan", *(word.format(**paths) for word in words), "--root", tmp_path)
    assert done.code in (2, 3), done
    assert said.format(**paths) in done.err
