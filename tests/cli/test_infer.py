"""Asking a model from the command line, once and turn by turn."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY
from tests.conftest import Command
from tests.e2e.serving import Running, request

QUESTION, ANSWER = EXAMPLES[0]
Children = list["subprocess.Popen[str]"]


def servers(root: Path, llama_runner: Command) -> list[Any]:
    found: list[Any] = llama_runner("ps", "--root", root, "--json").json
    return found


def started(root: Path) -> int:
    """Return how many servers have been started in a root."""
    return len(list((root / "logs").glob("run-server-*.log")))


@pytest.mark.parametrize("how", ["argument", "stdin"])
def test_an_answer_and_nothing_else_is_printed(root: Path, llama_runner: Command, how: str) -> None:
    asked = {"--prompt": QUESTION} if how == "argument" else {"--prompt": "-"}
    words = [word for pair in asked.items() for word in pair]
    more = {} if how == "argument" else {"input": QUESTION + "\n"}
    done = llama_runner("infer", "--demo", "--root", root, *words, "--temperature", "0", **more)
    assert (done.code, done.out) == (0, ANSWER + "\n"), done
    assert servers(root, llama_runner) == [], "what was started is stopped"


def test_a_server_that_runs_is_used_and_goes_on(root: Path, llama_runner: Command, children: Children) -> None:
    running = Running(children, "--demo", "--root", root)
    done = llama_runner("infer", "--demo", "--root", root, "--prompt", QUESTION, "--temperature", "0")
    assert done.out == ANSWER + "\n"
    assert started(root) == 1
    assert request(running.url, "/health")[0] == 200
    own = llama_runner("infer", "--demo", "--root", root, "--prompt", QUESTION, "--temperature", "0", "-c", "256")
    assert own.out == ANSWER + "\n"
    assert started(root) == 2, "one with other options is started"
    assert [about["pid"] for about in servers(root, llama_runner)] == [running.server_pid]


def adapter(path: Path) -> Path:
    """Write a LoRA adapter of the demo model that changes what it says."""
    config = json.loads((MODEL_DIRECTORY / "config.json").read_text())
    size, numbers = config["hidden_size"], np.random.RandomState(0).standard_normal
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 64.0)
    for layer in range(config["num_hidden_layers"]):
        writer.add_tensor(f"blk.{layer}.attn_output.weight.lora_a", numbers((2, size)).astype("f4"))
        writer.add_tensor(f"blk.{layer}.attn_output.weight.lora_b", numbers((size, 2)).astype("f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_11_05_a_server_with_other_adapters_is_not_used(
    root: Path, llama_runner: Command, tmp_path: Path, children: Children
) -> None:
    lora = adapter(tmp_path / "a.gguf")
    words = ("--prompt", QUESTION, "--temperature", "0", "--max-tokens", "16")
    plain = Running(children, "--demo", "--root", root, "--", "-np", "1")
    adapted = llama_runner("infer", "--demo", "--root", root, "--lora", lora, *words)
    assert adapted.code == 0, adapted
    assert not ANSWER.startswith(adapted.out.strip()), "the adapter counts"
    assert started(root) == 2, "a server of its own"
    plain.process.send_signal(signal.SIGTERM)
    assert plain.finish() == 0
    Running(children, "--demo", "--root", root, "--lora", lora)
    own = llama_runner("infer", "--demo", "--root", root, *words)
    assert ANSWER.startswith(own.out.strip()), own
    assert started(root) == 4
    again = llama_runner("infer", "--demo", "--root", root, "--lora", lora, *words)
    assert (again.out, started(root)) == (adapted.out, 4), "the one with the same adapter is used"


def test_for_programs_there_is_one_document(root: Path, llama_runner: Command) -> None:
    words = ["--prompt", QUESTION, "--temperature", "0", "--max-tokens", "4", "--seed", "1", "--top-p", "0.9"]
    told = llama_runner("infer", "--demo", "--root", root, *words, "--json").json
    assert told["text"] == "A step is one"
    assert told["finish_reason"] == "length"
    assert told["usage"]["completion_tokens"] == told["timings"]["tokens"] == 4
    cut = llama_runner("infer", "--demo", "--root", root, *words)
    assert cut.out == "A step is one\n"
    assert "the answer was cut" in cut.err


def test_an_answer_keeps_a_schema(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    schema = tmp_path / "schéma.json"
    schema.write_text(json.dumps({"enum": ["yes", "no"]}))
    done = llama_runner("infer", "--demo", "--root", root, "--prompt", "hello", "--schema", schema)
    assert json.loads(done.out) in ("yes", "no")


TURNS = ["hello", "/nonsense", "who are you? " * 300, QUESTION, "/reset", "", "hello", "/quit", "never said"]


def test_a_conversation_through_a_pipe(root: Path, llama_runner: Command) -> None:
    text = "\n".join(TURNS)
    done = llama_runner("chat", "--demo", "--root", root, "--temperature", "0", "--json", input=text)
    assert done.code == 0, done
    first, second, anew = [json.loads(line) for line in done.out.splitlines()]
    assert first["text"] == anew["text"] == dict(EXAMPLES)["hello"]
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
    assert anew["usage"]["prompt_tokens"] == first["usage"]["prompt_tokens"]
    assert "there is no /nonsense; /reset begins anew, /quit ends" in done.err
    assert "exceeds the available context size" in done.err
    assert servers(root, llama_runner) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", " "], "the prompt is empty"),
        (["--prompt", "a", "--ctx-size", "0"], "'0' is not a number from 1 up"),
        (["--prompt", "a", "--temperature", "-1"], "--temperature"),
        (["--prompt", "a", "--", "--embeddings"], "with --embeddings a server gives vectors, not text"),
        (["--prompt", "a", "--schema", "FILE"], "is no JSON schema: Expecting value: line 1 column 1"),
        (["--prompt", "a", "--schema", "LIST"], "is no JSON schema: it is not an object"),
        (["--prompt", "a", "--schema", "MISSING"], "is no JSON schema: No such file or directory"),
    ],
)
def test_what_makes_no_sense_is_told_before_any_work(
    llama_runner: Command, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "FILE").write_text("hello")
    (tmp_path / "LIST").write_text("[1]")
    words = [str(tmp_path / word) if word.isupper() else word for word in words]
    done = llama_runner("infer", "--demo", "--root", tmp_path / "root", *words)
    assert done.code == 2, done
    assert said in done.err
    assert not (tmp_path / "root").exists()


def test_a_schema_that_the_server_does_not_know_is_told(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    (tmp_path / "schema").write_text('{"type": "nonsense"}')
    done = llama_runner("infer", "--demo", "--root", root, "--prompt", "a", "--schema", tmp_path / "schema")
    assert done.code == 2, done
    assert "the server refuses the request" in done.err
    assert servers(root, llama_runner) == []
