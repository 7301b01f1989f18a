"""Images are part of a session: the answer after a restore is the one that it is without."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.vision_models import build, png
from tests.gateway.conftest import Start
from tests.gateway.session_chats import STORY, Json, Reply, chat, states, stop
from tests.shared_root import link_builds

ASKED: Json = {"logprobs": True, "top_logprobs": 3, "grammar": "root ::= [a-z ]+"}
"""Random weights give random tokens: of these the parser of llama-server understands only text."""
_ROUNDING = 0.05
"""What the size of a batch changes; another image changes twice as much."""


def is_same(one: Reply, other: Reply) -> bool:
    """Return whether two answers have the same tokens, each as probable as in the other but for rounding."""
    pairs = zip(*(each.json["choices"][0]["logprobs"]["content"] for each in (one, other)), strict=True)
    return all(a["token"] == b["token"] and abs(a["logprob"] - b["logprob"]) < _ROUNDING for a, b in pairs)


def look(blue: int = 128) -> list[Json]:
    url = f"data:image/png;base64,{base64.b64encode(png(blue=blue)).decode()}"
    content: list[dict[str, Any]] = [{"type": "text", "text": STORY}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("title", ["pixtral", "qwen2vl"])
def test_a_session_with_an_image_answers_as_without_a_restore(
    gateway: Start, tmp_path: Path, binaries: Path, title: str
) -> None:
    link_builds(binaries, tmp_path / "root")
    model = build(tmp_path / "model", title)
    text = f'[defaults]\nthreads = 1\n[models.one]\nsafetensors_dir = "{model}"\nmmproj = true\nquantization = "f16"\n'
    text += "check = false\nctx_size = 4096\nsessions = true\n"
    running = gateway(text)
    first = chat(running, look(), **ASKED)
    after = [*look(), first.json["choices"][0]["message"], {"role": "user", "content": "go on"}]
    lines = stop(running)
    assert [line["tokens"] > 0 for line in lines if line.get("event") == "session_saved"] == [True], lines
    assert len(states(tmp_path)) == 1
    running = gateway(text)
    restored = chat(running, after, **ASKED)
    assert (restored.session, restored.source) == ("hit", "disk")
    assert restored.read < 40, "the image is not read again"
    other = chat(running, look(255), **ASKED)
    stop(running)
    cold = gateway(text.replace("sessions = true\n", ""))
    assert is_same(restored, chat(cold, after, **ASKED))
    assert is_same(other, chat(cold, look(255), **ASKED)), "another image of the same size is read"
    assert not is_same(other, first)
