"""The real Hub, where it can be reached: it answers as the hub of the other tests does."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from llama_runner.sources.gguf_header import read_header
from llama_runner.sources.hub.endpoint_and_token import ENDPOINT
from tests.conftest import Command

REPO = "ggml-org/test-model-stories260K"
"""A model of a megabyte that llama.cpp itself is tested with."""


@pytest.fixture
def the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip where the Hub cannot be reached soon; else be a user who has nothing of it yet."""
    try:
        answer = httpx2.head(f"{ENDPOINT}/api/models/{REPO}", timeout=3)
    except (httpx2.HTTPError, OSError) as error:
        pytest.skip(f"the Hub cannot be reached: {error}")
    if answer.status_code != 200:
        pytest.skip(f"the Hub answers with {answer.status_code}; something may be in the way")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf home"))


@pytest.mark.network
@pytest.mark.usefixtures("the_hub")
def test_a_tiny_public_model_comes_whole_and_a_rerun_does_nothing(root: Path, llama_runner: Command) -> None:
    words = ("prepare", REPO, "--root", root, "--json")
    first = llama_runner(*words)
    assert first.code == 0, first
    assert first.json["ran"] == ["download"]
    assert read_header(Path(first.json["model"])).metadata["general.architecture"] == "llama"
    again = llama_runner(*words, "--offline")
    assert (again.json["ran"], again.json["model"]) == ([], first.json["model"])
    assert llama_runner("prepare", "ggml-org/there-is-no-such-model", "--root", root).code == 3
