"""A model that llama-server loads and does not run as it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner import Runner, ServerOptions
from llama_runner.core.events import Event, Warned
from tests.convert.families.t5 import t5

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_whose_answers_mean_nothing_is_served_with_a_warning(root: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    runner = Runner(root, on_event=heard.append)
    with runner.serve(safetensors_dir=t5(tmp_path / "t5"), quantization="f16", server=ServerOptions(port=0)):
        pass
    assert [event.what for event in heard if isinstance(event, Warned)] == ["t5"]
