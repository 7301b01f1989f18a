"""Vision models whose text part and projector are converted natively answer a question with an image."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.core.errors import ExitCode
from llama_runner.core.events import Event, StepStarted
from tests.convert.checkpoints import edit_json
from tests.e2e.serving import request
from tests.e2e.vision_models import MODELS, build, png

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Command


def look(url: str) -> tuple[int, Any]:
    """Ask what is on an image; the answer of a model with random weights is made of letters."""
    image = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    content = [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": image}}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 4, "grammar": "root ::= [a-z]+"}
    return request(url, "/v1/chat/completions", body)


@pytest.mark.parametrize("title", MODELS)
def test_a_vision_model_is_converted_natively_with_its_projector_and_answers_about_an_image(
    title: str, root: Path, tmp_path: Path
) -> None:
    heard: list[Event] = []
    runner = Runner(root, on_event=heard.append)
    directory = build(tmp_path / "model", title)
    with runner.serve(
        safetensors_dir=directory, mmproj=True, quantization="f16", check=False, server=ServerOptions(port=0)
    ) as server:
        assert sorted(event.step for event in heard if isinstance(event, StepStarted)) == ["convert", "projector"]
        status, answer = look(server.url)
        assert status == 200, answer


def test_the_plan_of_a_vision_model_has_no_environment_for_a_projector_that_is_converted_natively(
    root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    words = ("plan", build(tmp_path / "model", "gemma3"), "--mmproj", "--root", root, "--json")
    kinds = [step["name"] for step in llama_runner(*words).json["steps"]]
    assert "projector" in kinds
    assert "environment" not in kinds
    insisted = llama_runner(*words, "--converter", "official").json
    assert [step["name"] for step in insisted["steps"]].count("environment") == 1
    assert not (root / "models").exists()


def test_a_bad_vision_part_is_told_before_anything_is_made(root: Path, tmp_path: Path, llama_runner: Command) -> None:
    directory = build(tmp_path / "model", "gemma3")
    edit_json(directory / "preprocessor_config.json", image_mean=None)
    for command in ("plan", "prepare"):
        done = llama_runner(command, directory, "--mmproj", "--root", root, "--json")
        assert done.code == ExitCode.SOURCE
        assert "image_mean is missing" in done.err
        assert "fetch it again from the original repository" in done.err
    assert not list(root.glob("models/gguf/*/*.gguf"))
    assert llama_runner("plan", directory, "--root", root).code == 0
