"""Every built-in preset on the real llama-server: it starts, answers, and does what it says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from llama_runner import Runner
from llama_runner.config.presets import PRESETS
from llama_runner.serving.llama_server.memory_check import resident_bytes
from tests.e2e.serving import ask, embed, request
from tests.random_models import random_model

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = "what is a step?"
ANSWER = "A step is one piece of work"


def declared(directory: Path, preset: str) -> Path:
    path = directory / "llama-runner.toml"
    path.write_text(f'[models.m]\ndemo = true\nport = 0\npreset = "{preset}"\n')
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_a_server_with_a_preset_answers_and_has_its_slots_and_context(preset: str, root: Path, tmp_path: Path) -> None:
    with Runner(root, config=declared(tmp_path, preset)).serve("m") as server:
        status, slots = request(server.url, "/slots")
        assert status == 200
        settings: Any = PRESETS[preset]
        assert len(slots) == settings.llama.get("parallel", 4)
        if preset == "embeddings":
            one, other = embed(server.url, ["what is a step?", "what is a key?"])
            assert len(one) == len(other) > 1
            assert one != other
            return
        assert ask(server.url, QUESTION).startswith(ANSWER)
        words = server.spec.argv()
        context = settings.options.get("ctx_size")
        if isinstance(context, int):
            assert words[words.index("--ctx-size") + 1] == str(context)
        assert ("--kv-unified" in words) == (settings.llama.get("kv-unified") is True)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_with_low_memory_a_server_takes_less_than_without(root: Path, tmp_path: Path, binaries: Path) -> None:
    model, taken = random_model(binaries, "q4_k_m"), []
    for preset in ("", 'preset = "low-memory"\n'):
        path = tmp_path / "llama-runner.toml"
        path.write_text(f"[models.m]\ngguf_path = '{model}'\nport = 0\n{preset}")
        with Runner(root, config=path).serve("m") as server:
            request(server.url, "/completion", {"prompt": list(range(5, 400)), "n_predict": 4})
            taken.append(resident_bytes(server.pid))
    assert taken[1] < 0.8 * taken[0]
