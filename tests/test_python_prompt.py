"""What somebody sees who tries the library at a prompt or in a notebook."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from llama_runner import LlamaRunnerError, Runner


def test_13_05_a_plan_is_shown_as_a_line_for_each_step(tmp_path: Path) -> None:
    lines = repr(Runner(root=tmp_path).plan(demo=True)).splitlines()
    assert lines[0] == "<Forecast of demo:q4_k_m:"
    assert [line.split()[:2] for line in lines if line.startswith(("  convert", "  launch"))] == [
        ["convert", "run"],
        ["launch", "http://127.0.0.1:8080>"],
    ]
    assert lines[1].endswith("not made yet")
    assert any(line.endswith("runs if convert gives different bytes") for line in lines)
    assert len(lines) < 12
    assert max(map(len, lines)) < 100


def test_13_05_a_notebook_draws_the_steps_as_a_table(tmp_path: Path) -> None:
    table = ET.fromstring(Runner(root=tmp_path).plan(demo=True)._repr_html_())
    rows = [[cell.text for cell in row] for row in table.iter("tr")]
    assert rows[0] == ["step", "action", "why"]
    assert ["convert", "run", "not made yet"] in rows


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have notes since Python 3.11")
def test_13_05_a_traceback_ends_with_the_hint(tmp_path: Path) -> None:
    with pytest.raises(LlamaRunnerError) as caught:
        Runner(root=tmp_path).plan(tmp_path / "none")
    *_, last = traceback.format_exception(caught.value)
    assert last == f"hint: {caught.value.hint}\n"
