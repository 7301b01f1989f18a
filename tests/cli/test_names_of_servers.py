"""Servers by name, prompts as arguments, and words of other tools, from the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY
from llama_runner.serving.server_registry import machine, retire
from tests.conftest import Command, Result
from tests.e2e.serving import MODULE, Running

QUESTION, ANSWER = EXAMPLES[0]
GREEDY = ("--temperature", "0")
Children = list["subprocess.Popen[str]"]


@pytest.fixture
def stopped(root: Path, llama_runner: Command) -> Iterator[None]:
    """Stop what a test started in the background."""
    yield
    llama_runner("stop", "--all", "--root", root)


def started(root: Path) -> int:
    """Return how many servers have been started in a root."""
    return len(list((root / "logs").glob("run-server-*.log")))


def test_13_03_a_server_that_runs_is_asked_by_name_model_beginning_and_url(
    root: Path, llama_runner: Command, children: Children
) -> None:
    running = Running(children, "--demo", "--root", root, "-q", "q8_0")
    words: tuple[str, ...]
    for words in (
        ("demo:q8_0", QUESTION),
        ("demo", QUESTION),
        ("dem", QUESTION),
        (running.url, QUESTION),
        ("--url", running.url, QUESTION),
        ("--url", f"{running.url}/v1/", QUESTION),
        (QUESTION,),
        ("--prompt", QUESTION),
        ("demo", "--prompt", QUESTION),
        ("--demo", QUESTION),
    ):
        done = llama_runner("infer", *words, *GREEDY, "--root", root)
        assert (done.code, done.out) == (0, ANSWER + "\n"), (words, done)
    for words in ((), ("demo",), ("demo:q8_0", "-"), ("--demo", "--prompt", "-")):
        done = llama_runner("infer", *words, *GREEDY, "--root", root, input=QUESTION)
        assert (done.code, done.out) == (0, ANSWER + "\n"), (words, done)
    for words in ((), ("demo",), ("--url", running.url)):
        said = llama_runner("chat", *words, *GREEDY, "--root", root, input=f"{QUESTION}\n/quit\n")
        assert (said.code, said.out) == (0, ANSWER + "\n"), (words, said)
    measured = llama_runner("bench", "dem", "--concurrency", "1", "--requests", "1", "--json", "--root", root)
    assert measured.json["model"]["name"] == "demo:q8_0", measured
    assert "model loaded" in llama_runner("logs", "dem", "-n", "9999", "--root", root).out
    assert started(root) == 1, "all of them used the one that runs"
    assert not list(root.glob("models/gguf/*/*q4_k_m*")), "no other quantization was made"


def test_13_03_a_quantization_that_is_asked_for_is_made(root: Path, llama_runner: Command, children: Children) -> None:
    Running(children, "--demo", "--root", root, "-q", "q8_0")
    done = llama_runner("infer", "--demo", "-q", "q4_k_m", QUESTION, *GREEDY, "--root", root)
    assert (done.out, started(root)) == (ANSWER + "\n", 2), done


def test_13_03_a_directory_is_answered_by_its_server_in_another_quantization(
    root: Path, llama_runner: Command, tmp_path: Path, children: Children
) -> None:
    model = Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / "tiny"))
    (tmp_path / "other").mkdir()
    another = Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / "other" / "tiny"))
    config = json.loads((another / "config.json").read_text())
    (another / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 2e-5}))
    running = Running(children, model, "--root", root, "-q", "q8_0")
    done = llama_runner("infer", model, QUESTION, *GREEDY, "--root", root)
    assert (done.code, done.out, started(root)) == (0, ANSWER + "\n", 1), done
    assert f"note      tiny:q8_0 at {running.url} answers; -q chooses a quantization\n" in done.err
    assert llama_runner("infer", another, QUESTION, *GREEDY, "--root", root).code == 0
    assert started(root) == 2, "another directory of that name is another model"


def test_13_03_a_server_that_needs_a_key_is_used_with_it_or_named(
    root: Path, llama_runner: Command, children: Children
) -> None:
    running = Running(children, "--demo", "--root", root, LLAMA_API_KEY="a-key")
    for words in ((), ("demo",), ("--demo",)):
        done = llama_runner("infer", *words, "--prompt", QUESTION, *GREEDY, "--root", root)
        assert done.code == 8, done
        assert f"error: demo:q4_k_m runs at {running.url} and asks for an API key\n" in done.err
        assert "hint: set LLAMA_API_KEY to its key" in done.err
        env = {"LLAMA_API_KEY": "a-key"}
        assert (
            llama_runner("infer", *words, "--prompt", QUESTION, *GREEDY, "--root", root, env=env).out == ANSWER + "\n"
        )
    assert started(root) == 1, "it is not doubled"


def test_13_03_a_key_of_a_file_is_found(root: Path, llama_runner: Command, tmp_path: Path, children: Children) -> None:
    (tmp_path / "keys").write_text("a-key\n")
    (tmp_path / "keys").chmod(0o600)
    Running(children, "--demo", "--root", root, "--api-key-file", tmp_path / "keys")
    assert llama_runner("infer", "demo", QUESTION, *GREEDY, "--root", root).out == ANSWER + "\n"
    (tmp_path / "keys").write_text("a-new-key\n")
    asked = ("infer", "demo", QUESTION, *GREEDY, "--root", root)
    assert llama_runner(*asked).code == 8, "the server has not read the new one"
    assert llama_runner(*asked, env={"LLAMA_API_KEY": "a-key"}).out == ANSWER + "\n"


@pytest.mark.usefixtures("stopped")
def test_13_03_two_servers_of_one_name_are_told_apart(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    at, printed = ("--root", root), []
    for run in ("a", "b"):
        model = Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / run / "checkpoint-500"))
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5 if run == "a" else 2e-5}))
        done = llama_runner("run", model, "--detach", *at)
        assert done.code == 0, done
        printed.append(re.search(r"^stop      llama-runner (.*)$", done.out, re.MULTILINE)[1])  # type: ignore[index]
    urls = [about["url"] for about in llama_runner("ps", *at, "--json").json]
    for command in ("stop", "restart", "logs", "infer"):
        refused = llama_runner(command, "checkpoint-500", *(["hello"] if command == "infer" else []), *at)
        assert refused.code == 2, refused
        assert "error: 2 servers are called 'checkpoint-500'\n" in refused.err
        assert f"hint: name one by its URL: {urls[0]}, {urls[1]}\n" in refused.err
    done = llama_runner(*shlex.split(printed[1]))
    assert done.out.startswith(f"stopped   checkpoint-500:q4_k_m at {urls[1]}"), "as it is printed, root included"
    assert llama_runner(*shlex.split(printed[0])).out.startswith(f"stopped   checkpoint-500:q4_k_m at {urls[0]}")


def says(done: Result, code: int, text: str) -> None:
    assert done.code == code, done
    assert text in done.err, done


def test_13_03_what_is_no_prompt_and_no_server_is_told(llama_runner: Command, tmp_path: Path) -> None:
    at = ("--root", tmp_path)
    says(llama_runner("infer", "what is it?", *at), 2, "error: no model given, and no server runs\n")
    says(llama_runner("infer", "demo", "a", "--prompt", "b", *at), 2, "Error: two prompts: 'a' and --prompt\n")
    says(llama_runner("infer", "--demo", "model", "a", *at), 2, "error: 2 models given: MODEL model, --demo\n")
    says(llama_runner("infer", "--demo", *at, stdin=subprocess.DEVNULL), 2, "error: the prompt is empty\n")
    says(llama_runner("infer", "x", "a", "--url", "http://127.0.0.1:1", *at), 2, "either a model or --url")
    says(llama_runner("infer", "a", "--url", "http://127.0.0.1:1", *at), 8, "http://127.0.0.1:1")
    assert not list(tmp_path.glob("logs/*"))


def test_13_03_a_client_in_python_takes_the_name_of_a_server_too(root: Path, children: Children) -> None:
    running = Running(children, "--demo", "--root", root, "-q", "q8_0")
    runner = Runner(root)
    for how in ({"model": "demo:q8_0"}, {"url": running.url}, {"demo": True}, {}):
        with runner.client(**how) as client:
            assert client.chat(QUESTION, temperature=0).text == ANSWER
    assert started(root) == 1


@pytest.mark.usefixtures("stopped")
def test_13_04_serve_pull_and_demo_mean_what_they_mean_elsewhere(root: Path, llama_runner: Command) -> None:
    at = ("--root", root)
    pulled = llama_runner("pull", "demo", *at, "--json")
    assert pulled.json["model"].endswith("model.q4_k_m.gguf"), pulled
    served = llama_runner("serve", "demo:q8_0", "--port", "0", "--detach", *at, "--", "--metrics")
    assert served.code == 0, served
    assert "model     demo:q8_0:" in served.out
    assert llama_runner("stop", "demo", *at).code == 0


def test_13_04_list_show_and_rm_are_about_models(root: Path, llama_runner: Command) -> None:
    at = ("--root", root)
    llama_runner("prepare", "--demo", *at)
    for word, ours in (("list", "list"), ("ls", "list"), ("show", "show"), ("rm", "remove")):
        name = () if ours == "list" else ("demo",)
        said, meant = (llama_runner(*words, *name, *at, input="n\n") for words in ((word,), ("models", ours)))
        assert (said.code, said.out) == (meant.code, meant.out), said
        assert "demo" in said.out + said.err
    assert llama_runner("rm", "demo", "--yes", *at).code == 0
    assert llama_runner("ls", *at).out == ""


def test_13_04_a_directory_called_demo_is_that_directory(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    (tmp_path / "cwd" / "demo").mkdir()
    says(llama_runner("prepare", "demo", "--root", root), 3, "demo")


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("delete", "`llama-runner gc` frees what nothing needs"),
        ("create", "`llama-runner quantize`"),
    ],
)
def test_13_04_a_word_of_another_tool_is_one_line_that_names_our_command(
    llama_runner: Command, word: str, ours: str
) -> None:
    done = llama_runner(word, "llama3.2:1b")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: there is no command '{word}': ")
    assert done.err.count("\n") == 1
    assert ours in done.err


def test_13_04_a_name_of_another_library_says_how_names_are_found(llama_runner: Command, tmp_path: Path) -> None:
    done = llama_runner("run", "llama3.2:1b", "--root", tmp_path)
    says(done, 3, "error: llama3.2:1b is not a file or directory here, and not the name of a model on the Hugging Face")
    assert "`llama-runner search llama3.2 1b` finds names" in done.err


def test_13_04_help_of_a_command(llama_runner: Command) -> None:
    assert llama_runner("help").out == llama_runner("--help").out
    assert llama_runner("help", "stop").out == llama_runner("stop", "--help").out
    assert llama_runner("help", "bins", "list").out == llama_runner("bins", "list", "--help").out
    says(llama_runner("help", "nonsense"), 2, "No such command 'nonsense'")


def test_13_04_words_of_other_tools_are_in_no_list(llama_runner: Command) -> None:
    shown = llama_runner("--help").out
    completed = llama_runner(
        env={"_LLAMA_RUNNER_COMPLETE": "bash_complete", "COMP_WORDS": "llama-runner ", "COMP_CWORD": "1"}
    )
    for word in ("serve", "pull", "list", "help"):
        assert not re.search(rf"^  {word} ", shown, re.MULTILINE)
        assert word not in [line.partition(",")[2] for line in completed.out.splitlines()]
    assert subprocess.run([*MODULE, "serve", "--help"], check=True, capture_output=True, text=True).stdout


def test_13_03_servers_with_odd_names_are_listed_in_columns_and_stopped_as_printed(
    root: Path, llama_runner: Command, tmp_path: Path, stopped: None
) -> None:
    del stopped
    names, printed = ["esc\x1b[31mape\nline", os.fsdecode(b"bytes\xff")], []
    for name in names:
        model = Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / name))
        done = llama_runner("run", model, "--detach", "--root", root)
        assert done.code == 0, done
        printed.append(re.search(r"^stop      llama-runner (.*)$", done.out, re.MULTILINE)[1])  # type: ignore[index]
    lines = llama_runner("ps", "--root", root).out.splitlines()
    column = lines[0].index("state")
    assert [line[column:].split()[0] for line in lines] == ["state", "ready", "ready"]
    none = llama_runner("stop", "x", "--root", root)
    assert none.err.splitlines()[1].startswith("hint: running: esc\\x1b[31mape\\nline:q4_k_m, bytes"), none
    assert shlex.split(printed[0])[1].startswith("http://127.0.0.1:"), "what is printed can be typed"
    assert llama_runner(*shlex.split(printed[0])).code == 0
    assert llama_runner("stop", names[1], "--root", root).out.startswith("stopped   bytes")


def test_13_03_infer_and_chat_take_the_url_of_any_server_and_say_alike_what_is_missing(
    llama_runner: Command, tmp_path: Path
) -> None:
    at, url = ("--root", tmp_path), "http://127.0.0.1:1"
    words: tuple[str, ...]
    for words in (("infer", url, "hi"), ("infer", "--url", url, "hi"), ("chat", url), ("chat", "--url", url)):
        says(llama_runner(*words, *at, input=""), 8, f"error: cannot reach {url}")
    for words in (("infer", "two words"), ("chat",)):
        done = llama_runner(*words, *at, input="")
        says(done, 2, "error: no model given, and no server runs\nhint: name a model, or start one:")
    says(llama_runner("chat", "two words", *at, input=""), 2, "chat reads prompts from standard input")


def test_13_12_ended_servers_are_told_apart_by_their_whole_names(llama_runner: Command, tmp_path: Path) -> None:
    servers = Runner(tmp_path).servers
    for name in ("demo:q8_0", "demo:q4_k_m"):
        about = {
            "alias": name,
            "url": "http://127.0.0.1:8080",
            "log": "logs/x.log",
            "machine": machine(),
            "model": name,
        }
        retire(servers / "1.json", about)
    for command in ("logs", "restart"):
        refused = llama_runner(command, "demo", "--root", tmp_path)
        says(refused, 2, "error: 2 servers are called 'demo'\nhint: name one by its whole name: demo:q")
        assert "http" not in refused.err


def test_13_03_a_model_named_with_its_quantization_is_not_asked_of_another_one(
    root: Path, llama_runner: Command, children: Children
) -> None:
    Running(children, "--demo", "--root", root, "-q", "q8_0")
    done = llama_runner("infer", "demo:q4_k_m", QUESTION, *GREEDY, "--root", root)
    assert done.out == ANSWER + "\n"
    assert "demo:q8_0" not in done.err
    assert started(root) == 2
