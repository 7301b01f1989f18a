"""A model that this machine can never hold is refused before anything of it is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.core.errors import LlamaRunnerError, ServerError
from tests.conftest import Command, says
from tests.fakehub.hub import Hub
from tests.fakehub.models import write_gguf

HUGE = {"big-Q4_K_M.gguf": 1 << 46}


@pytest.fixture
def huge(hub: Hub, user_of_the_hub: None, tmp_path: Path) -> str:
    """Return the name of a repository whose file is said to have 64 TiB."""
    del user_of_the_hub
    hub.repo("acme/big", {"big-Q4_K_M.gguf": write_gguf(tmp_path / "big.gguf", 20_000)})
    hub.fault("lying_size", times=None, sizes=HUGE)
    return "acme/big"


def test_15_a_model_that_can_never_fit_is_refused_with_numbers(
    hub: Hub, huge: str, root: Path, llama_runner: Command
) -> None:
    refused = llama_runner("run", huge, "--port", "0", "--root", root)
    says(refused, 8, "acme/big:q4_k_m is too large for this machine: its weights take 64.0 TiB", "--force-memory")
    with pytest.raises(ServerError, match="is too large for this machine"):
        Runner(root).check(huge)
    assert hub.bytes_sent("big-Q4_K_M.gguf") == 0
    with pytest.raises(
        LlamaRunnerError, match=r"no space left|needs|size|disk"
    ):  # it is fetched then, and there is no such disk
        Runner(root).prepare(huge, server=ServerOptions(force_memory=True))


def test_15_up_refuses_it_before_any_other_model_is_fetched(hub: Hub, huge: str, root: Path, tmp_path: Path) -> None:
    hub.repo("acme/small", {"small-Q4_K_M.gguf": write_gguf(tmp_path / "small.gguf", 30_000)})
    config = tmp_path / "llama-runner.toml"
    config.write_text(f'[models.small]\nsource = "acme/small"\n[models.big]\nsource = "{huge}"\n')
    with pytest.raises(ServerError, match="is too large for this machine"):
        Runner(root).up(config=config)
    assert hub.bytes_sent("small-Q4_K_M.gguf") == 0


def test_15_only_what_is_to_be_served_must_fit(huge: str, root: Path) -> None:
    assert Runner(root).plan(huge).plan.pending
