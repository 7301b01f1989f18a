"""llama-server's options among ours: before ``--``, after it, and what is said where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Command, says

PLAN = ("plan", "--demo")


def launch(done: object) -> str:
    """Return the line of a plan that says what would be launched."""
    out: str = getattr(done, "out")  # noqa: B009
    assert getattr(done, "code") == 0, done  # noqa: B009
    return out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        ("--flash-attn on", "--flash-attn on"),
        ("--flash-attn=on", "--flash-attn on"),
        ("-np 2", "-np 2"),
        ("-fa on --metrics -ctk q8_0 -c 64", "-fa on --metrics -ctk q8_0"),
        ("--no-mmap --jinja -- -tb 3", "--no-mmap --jinja -tb 3"),
    ],
)
def test_13_01_options_of_llama_server_need_no_dashes(
    root: Path, llama_runner: Command, words: str, passed: str
) -> None:
    line = launch(llama_runner(*PLAN, "--root", root, *words.split()))
    assert line.endswith(f" {passed}"), line


def test_13_01_an_option_that_both_have_is_ours(root: Path, llama_runner: Command) -> None:
    line = launch(llama_runner(*PLAN, "--root", root, "-np", "2", "-t", "3", "--ctx-size", "64"))
    assert "--threads 3 --ctx-size 64 -np 2" in line


def test_13_01_they_are_served(root: Path, llama_runner: Command) -> None:
    done = llama_runner("run", "--demo", "--root", root, "--detach", "-np", "2", "--metrics")
    try:
        assert done.code == 0, done
        (server,) = llama_runner("ps", "--json", "--root", root).json
        assert server["slots"] == 2
    finally:
        llama_runner("stop", "--all", "--root", root)


def test_13_01_without_programs_one_line_says_where_they_belong(tmp_path: Path, llama_runner: Command) -> None:
    for words in (("--flash-attn", "on"), ("-np", "2")):
        done = llama_runner("run", "--demo", "--root", tmp_path, *words)
        says(done, 2, f"{words[0]} is an option of llama-server: put it after `--`")
        assert [entry.name for entry in tmp_path.iterdir()] == ["cwd"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--hf-token secret",
            "--hf-token is an option of llama-server that is not passed on: use HF_TOKEN or --token-file",
        ),
        (
            "-hf org/model",
            "-hf is an option of llama-server that is not passed on: name a file, a directory or ORG/MODEL",
        ),
        ("--flash-atn on", "no such option: --flash-atn (did you mean --flash-attn, an option of llama-server?)"),
        ("-- --flash-atn on", "did you mean --flash-attn?"),
        ("-- --detach", "--detach is an option of llama-runner: put it before `--`"),
        ("-- -q q8_0", "-q is an option of llama-runner: put it before `--`"),
        ("-- --hf-token secret", "use HF_TOKEN or --token-file before it"),
        ("-- -np two", "-np two: that is no number"),
        ("--quant q8_0", "--quantization"),
        ("--chat-template-file none.jinja", "error: none.jinja does not exist"),
    ],
)
def test_13_01_a_misplaced_or_misspelt_option_is_told_before_any_work(
    root: Path, llama_runner: Command, words: str, said: str
) -> None:
    done = llama_runner("run", "--demo", "--root", root, *words.split())
    says(done, 2, said)
    assert "secret" not in done.err
    assert not (root / "models").exists()


@pytest.mark.parametrize("command", ["run", "prepare", "ps"])
def test_13_01_no_unrelated_option_is_suggested(tmp_path: Path, llama_runner: Command, command: str) -> None:
    done = llama_runner(command, "--root", tmp_path, "--temp-dir", "on")
    says(done, 2, "--temp-dir")
    assert "--c" not in done.err
    assert "ean" not in done.err, "did you mean"


@pytest.mark.parametrize(("word", "said"), [("--help", "--flash-attn"), ("-h", "--ctx-size"), ("--version", "10605")])
def test_13_01_help_after_the_dashes_is_that_of_the_program(
    root: Path, llama_runner: Command, word: str, said: str
) -> None:
    done = llama_runner("run", "--root", root, "--", word)
    assert (done.code, said in done.out) == (0, True), done
    assert not (root / "models").exists()
    says(llama_runner("plan", "--demo", "--root", root, "--", word), 2, "llama-runner run -- --help")


def test_13_01_bins_path_answers_under_auto_too(root: Path, llama_runner: Command) -> None:
    build = next((root / "bins").glob("*/*/llama-server")).parent
    done = llama_runner("bins", "path", "--root", root)
    assert (done.code, Path(done.out.strip()).resolve()) == (0, build.resolve()), done


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-- -np", "-np needs N"),
        ("--metrics=1", "--metrics takes no value, and '1' comes after it"),
        ("--flash-attn=bogus", "--flash-attn bogus: it takes on, off, auto"),
        ("--host=0.0.0.0", "whoever reaches 0.0.0.0 could use the server: it has no API key"),
        ("--tls-cert=x", "--tls-cert and --tls-key belong together"),
        ("-- --chat-template-file none.jinja", "none.jinja"),
    ],
)
def test_13_01_plan_says_of_options_what_run_says_and_writes_nothing(
    root: Path, llama_runner: Command, words: str, said: str
) -> None:
    planned = llama_runner(*PLAN, "--root", root, *words.split())
    assert [entry.name for entry in root.iterdir()] == ["bins"]
    ran = llama_runner("run", "--demo", "--root", root, *words.split())
    assert (planned.code, planned.err) == (ran.code, ran.err)
    assert planned.code == 2
    assert said in planned.err
