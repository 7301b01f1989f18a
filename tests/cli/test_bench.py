"""Measuring a server, and keeping the options that make it fastest."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tests.e2e.serving import Running

Children = list["subprocess.Popen[str]"]
SMALL = ["--requests", "2", "--max-tokens", "4"]


def test_a_result_is_kept_and_the_next_one_compared_with_it(root: Path, llama_runner: Command) -> None:
    words = ["bench", "--demo", "--root", root, "--concurrency", "1,3", *SMALL]
    first = llama_runner(*words, "--json", "--compare").json
    assert "compared" not in first, "there is nothing to compare with"
    assert [level["concurrency"] for level in first["levels"]] == [1, 3]
    one, three = first["levels"]
    assert (one["requests"], three["requests"]) == (2, 6)
    assert one["errors"] == three["errors"] == {}
    assert (one["tokens"], three["tokens"]) == (8, 24)
    for level in first["levels"]:
        assert 0 < level["first_token_s"]["p50"] <= level["latency_s"]["p50"] <= level["latency_s"]["p99"]
        assert level["tokens_per_second"] > 0
    assert first["model"]["digest"].startswith("sha256:")
    assert first["binary"]["digest"].startswith("tree1:")
    assert first["machine"]["cores"] > 0
    second = llama_runner(*words, "--compare")
    assert f"compared  with {first['at']}, the same binary" in second.out
    third = llama_runner(*words, "--compare", "--json").json
    assert [level["concurrency"] for level in third["compared"]] == [1, 3]
    [file] = (root / ".llama_runner" / "bench").iterdir()
    assert len(file.read_text().splitlines()) == 3
    other = llama_runner(*words, "--max-tokens", "5", "--compare").out
    assert "compared  with nothing" in other, "another load is another thing"


def test_raw_figures_are_kept_and_compared_by_test(root: Path, llama_runner: Command) -> None:
    words = ["bench", "--raw", "--demo", "--root", root, "--threads", "1", "--compare"]
    short = ["--", "-p", "32,16", "-n", "8", "-r", "1"]
    first = llama_runner(*words, "--json", *short).json
    assert [test["test"] for test in first["raw"]] == ["pp32", "pp16", "tg8"]
    for test in first["raw"]:
        assert test["tokens_per_second"] > 0
        assert test["settings"]["n_threads"] == 1
    assert (first["model"]["name"], first["binary"]["digest"][:6]) == ("demo:q4_k_m", "tree1:")
    assert "compared" not in first, "there is nothing to compare with"
    second = llama_runner(*words, *short).out
    assert [line.split()[:2] for line in second.splitlines()[1:4]] == [["pp32", "1"], ["pp16", "1"], ["tg8", "1"]]
    assert f"compared  with {first['at']}, the same binary" in second
    assert "       pp32  tokens_per_second " in second
    [file] = (root / ".llama_runner" / "bench").iterdir()
    assert len(file.read_text().splitlines()) == 2
    refused = llama_runner(*words, "--", "--no-such-option")
    assert refused.code == 2, refused
    assert "error: llama-bench: invalid parameter for argument: --no-such-option\nfull log: logs/" in refused.err


def test_a_server_that_runs_somewhere_is_measured(root: Path, llama_runner: Command, children: Children) -> None:
    running = Running(children, "--demo", "--root", root)
    told = llama_runner("bench", "--url", running.url, "--root", root, "--concurrency", "2", *SMALL, "--json").json
    assert told["levels"][0]["tokens"] == 16
    assert told["model"]["name"] == "demo:q4_k_m"
    assert running.process.poll() is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--demo", "--url", "http://127.0.0.1:1"], "either a model or --url"),
        (["--demo", "--concurrency", "0"], "'0' is not a list of numbers from 1 to 1024"),
        (["--demo", "--concurrency", "1,x"], "is not a list of numbers"),
        (["--demo", "--", "--embeddings"], "gives vectors, not text"),
        (["--demo", "--profile", "fast"], "no profile called 'fast'"),
        (["--demo", "--raw", "--concurrency", "2"], "--raw has no server: leave --concurrency out"),
        (["--demo", "--raw", "--", "-o", "md"], "-o cannot be given to llama-bench"),
    ],
)
def test_what_makes_no_sense_is_told(llama_runner: Command, tmp_path: Path, words: list[str], said: str) -> None:
    done = llama_runner("bench", "--root", tmp_path / "root", *words)
    assert done.code == 2, done
    assert said in done.err


def test_an_unreachable_server_is_an_error(llama_runner: Command, root: Path) -> None:
    done = llama_runner("bench", "--root", root, "--url", "http://127.0.0.1:1")
    assert (done.code, "cannot reach http://127.0.0.1:1" in done.err) == (8, True), done


def test_what_was_tuned_is_what_run_uses(root: Path, llama_runner: Command) -> None:
    done = llama_runner("tune", "--demo", "--root", root, "--budget", "0.01", "--name", "quick", *SMALL, "--json").json
    assert done["settings"] == {}, "the default wins where nothing else was tried"
    assert not done["finished"]
    assert done["tokens_per_second"] == done["default_tokens_per_second"] > 0
    assert done["tried"][0]["settings"] == {}
    path = Path(done["profile"])
    kept: dict[str, Any] = json.loads(path.read_text())
    kept["settings"] = {"--threads": "1", "--ubatch-size": "128"}
    path.write_text(json.dumps(kept))

    def argv(*words: str) -> list[str]:
        found: list[str] = llama_runner("plan", "--demo", "--root", root, "--json", *words).json["launch"]["argv"]
        return found

    tuned = argv("--profile", "quick")
    assert tuned[tuned.index("--threads") + 1] == "1"
    assert tuned[tuned.index("--ubatch-size") + 1] == "128"
    mine = argv("--profile", "quick", "--threads", "2", "--", "--ubatch-size", "64")
    assert mine[mine.index("--threads") + 1] == "2"
    assert mine[-2:] == ["--ubatch-size", "64"], "what stands last counts"
    unknown = llama_runner("plan", "--demo", "--root", root, "--profile", "fast")
    assert unknown.code == 2
    assert "hint: there are quick" in unknown.err
    path.with_name("of_the_model-1234.json").write_text(json.dumps({**kept, "name": "demo:q4_k_m"}))
    unknown = llama_runner("plan", "--demo", "--root", root, "--profile", "fast")
    assert "hint: there are demo:q4_k_m, quick\n" in unknown.err, "as it was typed, not as its file is named"
    path.write_text("{")
    assert llama_runner("plan", "--demo", "--root", root, "--profile", "quick").code == 2


def test_11_18_a_root_that_cannot_be_written_is_told_before_tuning(
    root: Path, llama_runner: Command, read_only: Callable[[Path], None]
) -> None:
    assert llama_runner("prepare", "--demo", "--root", root).code == 0
    read_only(root)
    done = llama_runner("tune", "--demo", "--root", root, "--budget", "0.01", *SMALL)
    assert done.code == 7, done
    assert f"error: cannot keep the profile in {root / '.llama_runner' / 'profiles'}: " in done.err
    assert "tokens/s" not in done.err, "nothing was measured"


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_11_18_what_was_tuned_and_cannot_be_kept_is_printed(root: Path, llama_runner: Command, how: list[str]) -> None:
    (root / ".llama_runner" / "profiles" / "quick.json" / "a file").mkdir(parents=True)
    done = llama_runner("tune", "--demo", "--root", root, "--budget", "0.01", "--name", "quick", *SMALL, *how)
    assert done.code == 7, done
    where = f"cannot keep the profile in {root / '.llama_runner' / 'profiles'}: "
    if how:
        told = json.loads(done.err.splitlines()[-1])
        assert (told["code"], told["hint"], told["error"].startswith(where)) == (7, "it is printed above", True)
    else:
        assert f"error: {where}" in done.err
        assert "hint: it is printed above\n" in done.err
    if how:
        assert (done.json["profile"], done.json["settings"], done.json["tokens_per_second"] > 0) == (None, {}, True)
    else:
        assert done.out.startswith("best      the default: ")


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_11_18_a_result_that_cannot_be_kept_is_printed(root: Path, llama_runner: Command, how: list[str]) -> None:
    (root / ".llama_runner").mkdir()
    (root / ".llama_runner" / "bench").write_text("a file")
    done = llama_runner("bench", "--demo", "--root", root, "--concurrency", "1", *SMALL, *how)
    assert done.code == 7, done
    where = f"cannot keep the result in {root / '.llama_runner' / 'bench'}: "
    assert (json.loads(done.err.splitlines()[-1])["error"] if how else done.err.partition("error: ")[2]).startswith(
        where
    )
    assert (done.json["levels"][0]["requests"] if how else done.out.splitlines()[1].split()[1].strip()) in (2, "2")
