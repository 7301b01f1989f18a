"""Looking for models: what is there, how large it is, and what fits this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.cli.search_cmds import table
from llama_runner.core.errors import ExitCode, SourceError
from llama_runner.sources.hub.endpoint_and_token import Access
from llama_runner.sources.hub.errors import HubError
from llama_runner.sources.hub.search import Quantization, SearchResult, search, search_with
from llama_runner.system import hardware
from tests.conftest import Result
from tests.fakehub.hub import Hub

TOKEN = "hf_ThisMustNotBeSeenAnywhere"
KIB = 1 << 10


def look(hub: Hub, words: str = "tiny", limit: int = 10, budget: int = 5 * KIB) -> list[SearchResult]:
    return search_with(words, Access(hub.url, None, "none"), limit, budget=budget)


def names(found: SearchResult) -> list[tuple[str, int, bool]]:
    return [(one.name, one.size, one.fits) for one in found.quantizations]


def test_each_quantization_has_its_size_and_whether_it_fits(hub: Hub) -> None:
    files = {
        "tiny-Q8_0.gguf": b"x" * 8 * KIB,
        "tiny-Q4_K_M.gguf": b"x" * 5 * KIB,
        "tiny-UD-Q4_K_M.gguf": b"x" * 4 * KIB,
        "tiny-imatrix.gguf": b"x",
        "README.md": b"x",
    }
    hub.repo("acme/tiny-GGUF", dict(files), downloads=1234, likes=7, gated=True)
    assert look(hub) == [
        SearchResult(
            repo="acme/tiny-GGUF",
            downloads=1234,
            likes=7,
            updated="2026-11-01T10:00:00.000Z",
            gated=True,
            quantizations=(
                Quantization("UD-Q4_K_M", 4 * KIB, fits=True, file="tiny-UD-Q4_K_M.gguf"),
                Quantization("Q4_K_M", 5 * KIB, fits=True, file="tiny-Q4_K_M.gguf"),
                Quantization("Q8_0", 8 * KIB, fits=False, file="tiny-Q8_0.gguf"),
            ),
        )
    ]
    assert hub.counted() == 2


def test_shards_are_summed_and_a_set_with_holes_is_left_out(hub: Hub) -> None:
    shards = {f"Q8_0/tiny-Q8_0-{index:05}-of-00003.gguf": b"x" * 2 * KIB for index in (1, 2, 3)}
    holes = {f"tiny-F16-{index:05}-of-00003.gguf": b"x" for index in (1, 3)}
    hub.repo("acme/tiny", {**shards, **holes})
    (found,) = look(hub)
    assert names(found) == [("Q8_0", 6 * KIB, False)]
    assert found.quantizations[0].file == "Q8_0/tiny-Q8_0-00001-of-00003.gguf"


def test_a_projector_has_to_fit_as_well(hub: Hub) -> None:
    hub.repo("acme/tiny", {"tiny-Q4_K_M.gguf": b"x" * 4 * KIB, "mmproj-f16.gguf": b"x" * 2 * KIB})
    assert names(look(hub, budget=6 * KIB)[0]) == [("Q4_K_M", 4 * KIB, True)]
    assert names(look(hub, budget=6 * KIB - 1)[0]) == [("Q4_K_M", 4 * KIB, False)]


def test_what_has_no_name_of_its_own_is_called_as_its_file(hub: Hub) -> None:
    hub.repo("acme/tiny", {"a/one-Q8_0.gguf": b"x", "a/two-Q8_0.gguf": b"xx", "plain.gguf": b"xxx"})
    assert [one.name for one in look(hub)[0].quantizations] == ["a/one-Q8_0.gguf", "a/two-Q8_0.gguf", "plain.gguf"]


def test_the_most_downloaded_come_first_whoever_answers_first(hub: Hub) -> None:
    for number in range(12):
        hub.repo(f"acme/tiny-{number}", {"tiny-Q8_0.gguf": b"x"}, downloads=number)
    assert [found.downloads for found in look(hub, limit=9)] == [11, 10, 9, 8, 7, 6, 5, 4, 3]
    assert hub.counted() == 2 + 8


def test_a_repository_that_cannot_be_listed_is_there_without_sizes_and_says_why(hub: Hub) -> None:
    hub.repo("acme/tiny-a", {"tiny-Q8_0.gguf": b"x"}, downloads=3)
    hub.repo("acme/tiny-b", {"tiny-Q8_0.gguf": b"x"}, downloads=2)
    hub.repo("acme/tiny-c", {"tiny-Q8_0.gguf": b"x"}, downloads=1).extra_names.append("../../x.gguf")
    hub.fault("403", path="*/acme/tiny-a/*", code="GatedRepo")
    gated, well, unsafe = look(hub)
    assert (gated.quantizations, gated.problem) == ((), "acme/tiny-a is gated, and no token is set")
    assert (len(well.quantizations), well.problem) == (1, None)
    assert unsafe.quantizations == ()
    assert "would leave the directory" in str(unsafe.problem)


def test_nothing_found_is_no_error(hub: Hub) -> None:
    assert look(hub) == []


def test_a_search_that_fails_is_an_error(hub: Hub) -> None:
    hub.fault("401", path="/api/models", times=None)
    with pytest.raises(HubError, match=": it is invalid or expired"):
        search_with("tiny", Access(hub.url, TOKEN, "HF_TOKEN"))


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_nobody_is_asked(hub: Hub, variable: str) -> None:
    with pytest.raises(SourceError, match="the answer to a search for 'tiny' is not here"):
        search("tiny", environment={"HF_ENDPOINT": hub.url, variable: "1"}, notice=lambda _what, _text: None)
    assert hub.counted() == 0


# --- the command ---


def command(hub: Hub, *arguments: str, **environment: str) -> Result:
    """Run the command to its end."""
    script = (
        "import sys; from llama_runner.cli import main, search_cmds; sys.exit(main.main(command=search_cmds.search))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": "/nonexistent", **environment},
        timeout=60,
    )
    assert TOKEN not in done.stdout + done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def test_the_command_prints_a_table(hub: Hub) -> None:
    hub.repo("acme/tiny-GGUF", {"tiny-Q8_0.gguf": b"x" * 9000, "tiny-Q4_K_M.gguf": b"x" * 500}, downloads=2_345_678)
    hub.repo("acme/tiny-parts", {"tiny-Q8_0-00002-of-00003.gguf": b"x"}, likes=999, gated=True)
    done = command(hub, "TINY")
    assert done.code == 0, done
    assert done.err == ""
    assert done.out.splitlines()[:-1] == [
        "acme/tiny-GGUF   2.3M downloads, 0 likes, updated 2026-11-01",
        "  Q4_K_M    500 B  fits",
        "  Q8_0    8.8 KiB  fits",
        "acme/tiny-parts   0 downloads, 999 likes, updated 2026-11-01, gated",
        "  no whole GGUF file of a model at the branch main",
        "",
    ]
    assert done.out.splitlines()[-1].endswith(" fits this machine; run one with: llama-runner run acme/tiny-GGUF:Q8_0")


def test_the_command_prints_json(hub: Hub) -> None:
    hub.repo("acme/tiny-GGUF", {"tiny-Q8_0.gguf": b"x" * 9000}, downloads=5, likes=6)
    hub.repo("acme/tiny-other", {"tiny-Q8_0.gguf": b"x" * 9000})
    assert command(hub, "ti", "ny", "--json", "--limit", "1").json == [
        {
            "repo": "acme/tiny-GGUF",
            "downloads": 5,
            "likes": 6,
            "updated": "2026-11-01T10:00:00.000Z",
            "gated": False,
            "license": None,
            "problem": None,
            "quantizations": [{"name": "Q8_0", "size": 9000, "fits": True, "file": "tiny-Q8_0.gguf"}],
        }
    ]


def test_the_command_finds_nothing_and_says_so(hub: Hub) -> None:
    done = command(hub, "no", "such")
    assert (done.code, done.out) == (0, "nothing with GGUF files is found for 'no such'\n")
    done = command(hub, "no", "such", "--json")
    assert (done.code, json.loads(done.out)) == (0, [])


def test_the_command_asks_with_the_token_of_a_file(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o644)
    hub.tokens[TOKEN] = {}
    done = command(hub, "tiny", "--token-file", str(path))
    assert done.code == 0, done
    assert f"others can read the token in {path}" in done.err
    assert hub.requests[0].authorization == f"Bearer {TOKEN}"


def test_the_command_says_what_is_wrong(hub: Hub) -> None:
    hub.fault("401", path="/api/models")
    done = command(hub, "tiny", HF_TOKEN=TOKEN)
    assert done.code == ExitCode.SOURCE
    expected = f"error: {hub.url} refuses the token from HF_TOKEN: it is invalid or expired\n"
    assert done.err.startswith(f"{expected}hint: make a new one at {hub.url}/settings/tokens")
    assert command(hub, "tiny", HF_ENDPOINT="nowhere").code == ExitCode.USAGE
    assert command(hub, "tiny", HF_HUB_OFFLINE="1").code == ExitCode.SOURCE
    assert command(hub, "tiny", "--limit", "0").code == ExitCode.USAGE
    assert command(hub).code == ExitCode.USAGE


def test_a_table_names_the_largest_that_fits_of_the_most_popular() -> None:
    big = Quantization("Q8_0", 3, fits=False, file="b.gguf")
    small = Quantization("Q4_K_M", 1, fits=True, file="s.gguf")
    found = [
        SearchResult("acme/large", 1, None, None, gated=False, quantizations=(big,)),
        SearchResult("acme/mixed", None, 12_300, None, gated=False, quantizations=(small, big)),
    ]
    lines = table(found, 2).splitlines()
    assert lines[0] == "acme/large   1 downloads, ? likes"
    assert lines[2] == "acme/mixed   ? downloads, 12.3k likes"
    assert lines[-1] == "up to 2 B fits this machine; run one with: llama-runner run acme/mixed:Q4_K_M"
    assert table(found[:1], 2).endswith("llama-runner run ORG/MODEL:QUANT")


def test_what_fits_is_measured_against_this_machine(hub: Hub) -> None:
    hub.repo("acme/tiny", {"tiny-Q8_0.gguf": b"x"}).sizes["tiny-Q8_0.gguf"] = hardware.model_budget() + 1
    (found,) = search_with("tiny", Access(hub.url, None, "none"))
    assert found.quantizations[0].fits is False
