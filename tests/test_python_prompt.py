"""What somebody sees who tries the library at a prompt or in a notebook."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from llama_runner import LlamaRunnerError, Runner, ServerOptions
from llama_runner.core.errors import UsageError


def test_13_05_a_plan_is_shown_as_a_line_for_each_step(tmp_path: Path) -> None:
    lines = repr(Runner(root=tmp_path).plan(demo=True)).splitlines()
    assert lines[0] == "<PlanResult of demo:q4_k_m:"
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


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"port": "8080"}, "port", 8080),
        ({"ctx_size": "auto"}, "ctx_size", "auto"),
        ({"ctx_size": "4096"}, "ctx_size", 4096),
        ({"gpu_layers": "all"}, "gpu_layers", "all"),
        ({"load_timeout": 5}, "load_timeout", 5.0),
        ({"api_key_file": "key.txt"}, "api_key_file", Path("key.txt").absolute()),
        ({"extra": ["-np", "2"]}, "extra", ("-np", "2")),
        ({"port": None}, "port", 8080),
    ],
)
def test_13_05_a_value_that_is_only_written_otherwise_is_converted(
    given: dict[str, Any], field: str, value: object
) -> None:
    found = getattr(ServerOptions(**given), field)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"port": "http"}, "port: expected a whole number from 0 to 65535, got 'http'"),
        ({"port": 70000}, "port: expected a whole number from 0 to 65535, got 70000"),
        ({"port": True}, "port: expected a whole number from 0 to 65535, got True"),
        ({"threads": 1.5}, "threads: expected a whole number of at least 1, got 1.5"),
        ({"load_timeout": float("nan")}, "load_timeout: expected a number of at least 0, got nan"),
        ({"insecure": "no"}, "insecure: expected True or False, got 'no'"),
        ({"extra": "--embeddings"}, "extra: expected a list of texts, got '--embeddings'"),
        ({"extra": [1]}, "extra: expected a list of texts, got [1]"),
        ({"api_key": 12345}, "api_key: expected text, got int"),
        ({"api_key_file": 1}, "api_key_file: expected a path, got 1"),
    ],
)
def test_13_05_a_value_of_another_kind_is_refused_with_the_name_of_its_field(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        ServerOptions(**given)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("given", "said", "hint"),
    [
        ({"quantization": ["q4_k_m", "q8_0"]}, "quantization: expected text, got ['q4_k_m', 'q8_0']",
         "write quantization='q4_k_m,q8_0'"),
        ({"lora": "a.gguf"}, "lora: expected a list of texts, got 'a.gguf'", "write lora=('a.gguf',)"),
        ({"force": "convert"}, "force: expected a list of texts, got 'convert'", "write force=('convert',)"),
        ({"max_size": "many"}, "max_size: expected bytes, or text such as '8G', got 'many'", None),
        ({"offline": 1}, "offline: expected True or False, got 1", None),
        ({"jobs": "x"}, "jobs: expected a whole number of at least 1, got 'x'", None),
        ({"outtype": "f8"}, "outtype: expected 'auto' or 'bf16' or 'f16' or 'f32' or 'q8_0', got 'f8'", None),
    ],
)  # fmt: skip
def test_13_05_a_keyword_of_another_kind_is_refused_with_its_name(
    tmp_path: Path, given: dict[str, Any], said: str, hint: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        Runner(root=tmp_path).plan(demo=True, **given)
    assert (str(caught.value), caught.value.hint) == (said, hint)


def test_13_05_force_may_be_true(tmp_path: Path) -> None:
    forced: dict[str, Any] = {"force": True}
    plan = Runner(root=tmp_path).plan(demo=True, **forced)
    assert "you asked for it" in repr(plan)
