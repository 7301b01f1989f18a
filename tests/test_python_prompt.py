"""What somebody sees who tries the library at a prompt or in a notebook."""

from __future__ import annotations

import copy
import inspect
import json
import pydoc
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from llama_runner import LlamaRunnerError, Runner, ServerOptions
from llama_runner.core.errors import UsageError
from llama_runner.core.events import Event
from llama_runner.request.flags_to_keywords import keywords_in
from llama_runner.request.request_keywords import RunnerKeywords
from llama_runner.serving.listed_server import ServerEntry
from tests.conftest import REPOSITORY, Command


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


@pytest.mark.parametrize("name", ["serve", "plan", "prepare", "check", "make", "ensure_ready", "client", "serve_async"])
def test_13_05_a_signature_shows_the_real_parameters(tmp_path: Path, name: str) -> None:
    bound = inspect.signature(getattr(Runner(tmp_path), name))
    shown = inspect.signature(getattr(Runner, name))
    assert list(shown.parameters) == ["self", *bound.parameters]
    assert not [each for each in shown.parameters.values() if each.kind is each.VAR_KEYWORD]
    assert {*RunnerKeywords.__annotations__} <= {*shown.parameters}
    assert (shown.parameters["quantization"].default, shown.parameters["outtype"].default) == (None, "auto")
    assert shown.parameters["demo"].annotation == "bool"


def test_13_05_signatures_of_the_classes_show_the_real_parameters() -> None:
    assert list(inspect.signature(Runner).parameters) == ["root", "on_event", "lock_timeout", "config"]
    shown = inspect.signature(ServerOptions)
    assert list(shown.parameters) == list(ServerOptions.fields)
    assert (shown.parameters["port"].default, shown.parameters["port"].annotation) == (8080, "int")


def test_13_05_help_shows_the_keywords_and_the_docstring() -> None:
    shown = pydoc.render_doc(Runner.serve, renderer=PLAIN)
    assert "quantization: 'str | None' = None" in shown
    assert "Prepare, launch, and return the server once it answers." in shown
    assert "quantization: 'str | None' = None" in pydoc.render_doc(Runner, renderer=PLAIN)


PLAIN: Any = pydoc.plaintext  # type: ignore[attr-defined]  # not in the stubs
UNTYPED_RUNNER: Any = Runner
UNTYPED_OPTIONS: Any = ServerOptions
"""Without the types that a checker would compare."""

WRONG_ARGUMENTS: list[tuple[Callable[[Any], object], str]] = [
    (lambda runner: runner.plan(5), "model: expected text or a path, got 5"),
    (lambda runner: runner.plan(demo=True, server={"api_key": "secret"}), "server: expected a ServerOptions, got dict"),
    (lambda runner: runner.plan(demo=True, server=ServerOptions), "server: expected a ServerOptions, got type"),
    (lambda runner: runner.launch("demo"), "prepared: expected what Runner.prepare returns, got 'demo'"),
    (lambda runner: runner.models.show(5), "name: expected text, got 5"),
    (lambda runner: runner.models.remove("a", 5), "names: expected text, got 5"),
    (lambda runner: runner.models.keep(None), "name: expected text, got None"),
    (lambda runner: runner.stop(5.5), "name: expected text or a whole number, got 5.5"),
    (lambda runner: runner.inspect(5), "path: expected text or a path, got 5"),
    (lambda runner: runner.search(5), "words: expected text, got 5"),
    (lambda runner: runner.make(demo=True, output=5), "output: expected text or a path, got 5"),
    (lambda runner: runner.gc(older_than="a week"), "older_than: expected a number, got 'a week'"),
    (lambda runner: runner.gc(max_size=True), "max_size: expected a whole number, got True"),
    (lambda runner: runner.gc(apply="no"), "apply: expected True or False, got 'no'"),
    (lambda runner: runner.services.find(5), "name: expected text, got 5"),
    (lambda runner: runner.benchmarks.bench(5), "model: expected text or a path, got 5"),
    (lambda _: UNTYPED_RUNNER(root=5), "root: expected text or a path, got 5"),
    (lambda _: UNTYPED_RUNNER(on_event="x"), "on_event: expected a function that takes an event, got 'x'"),
    (lambda _: UNTYPED_RUNNER(lock_timeout="x"), "lock_timeout: expected a number, got 'x'"),
    (lambda _: UNTYPED_RUNNER(rot="x"), "unexpected keyword argument 'rot', did you mean 'root'?"),
    (lambda _: UNTYPED_OPTIONS(prot=8080), "unexpected keyword argument 'prot', did you mean 'port'?"),
]


@pytest.mark.parametrize(("call", "said"), WRONG_ARGUMENTS, ids=[said for _, said in WRONG_ARGUMENTS])
def test_13_05_a_wrong_argument_is_an_error_with_the_name_of_the_parameter(
    tmp_path: Path, call: Callable[[Any], object], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        call(Runner(tmp_path))
    assert str(caught.value) == said


@pytest.mark.parametrize("root", ["a\0b", "a\ud800b"])
def test_13_05_a_root_that_no_directory_can_be_called_is_refused_at_once(root: str) -> None:
    with pytest.raises(UsageError, match="root: no directory can be called") as raised:
        Runner(root)
    assert raised.value.hint


def test_13_05_a_misspelt_keyword_is_a_type_error_too() -> None:
    keywords: dict[str, Any] = {"rot": "x"}
    with pytest.raises(TypeError):
        Runner(**keywords)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("look again with --update; if it stays so", "look again with update=True; if it stays so"),
        ("run once without --offline (and HF_HUB_OFFLINE)", "run once without offline=True (and HF_HUB_OFFLINE)"),
        ("say which one with --filename NAME", "say which one with filename=NAME"),
        ("leave out the projector with --no-projector", "leave out the projector with projector=False"),
        ("convert with --outtype bf16 or f32", "convert with outtype='bf16' or f32"),
        ("build them (--binaries build), or choose another --device; a",
         "build them (binaries='build'), or choose another device; a"),
        ("for example --cmake-arg GGML_LTO=ON", "for example cmake_args=['GGML_LTO=ON']"),
        ("make it again: --force-step environment", "make it again: force=['environment']"),
        ("start it with --ctx-size 5000 or more", "start it with ServerOptions(ctx_size=5000) or more"),
        ("choose another --host or --port", "choose another ServerOptions(host=…) or ServerOptions(port=…)"),
        ("--insecure goes on without", "ServerOptions(insecure=True) goes on without"),
        ("choose another --root (LLAMA_RUNNER_ROOT)", "choose another root (LLAMA_RUNNER_ROOT)"),
        ("choose another --output, or remove it", "choose another output, or remove it"),
        ("pass one that is there: -- --mmproj FILE", "pass one that is there: -- --mmproj FILE"),
        ("`llama-runner run X --offline` tells", "`llama-runner run X --offline` tells"),
        ("run org/base --lora ./adapter", "run org/base --lora ./adapter"),
        ("sudo apt-get install -y --no-install-recommends g++", "sudo apt-get install -y --no-install-recommends g++"),
    ],
)  # fmt: skip
def test_13_05_hints_name_keywords_instead_of_flags(text: str, said: str) -> None:
    assert keywords_in(text) == said


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have notes since Python 3.11")
def test_13_05_errors_in_python_name_keywords_and_those_of_commands_flags(
    tmp_path: Path, llama_runner: Command, binaries: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        Runner(tmp_path).plan()
    assert "demo=True" in (caught.value.hint or "")
    assert getattr(caught.value, "__notes__", None) == [f"hint: {caught.value.hint}"]
    with pytest.raises(UsageError, match=r"^both imatrix and calibration are given"):
        Runner(tmp_path).plan(demo=True, imatrix="a", calibration="b")
    with pytest.raises(UsageError, match=r"^--threads needs N ") as caught:
        Runner(binaries).plan(demo=True, server=ServerOptions(extra=("--threads",)))
    assert "or --demo for" in llama_runner("plan", "--root", str(tmp_path)).err


def test_13_05_the_events_are_a_table_in_the_docs() -> None:
    table = (REPOSITORY / "docs/python.md").read_text(encoding="utf-8").partition("## Events")[2].partition("\n## ")[0]
    told = {
        name: re.findall(r"`(\w+)`", fields)
        for name, fields in re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE)
    }
    kinds = Event.__subclasses__()
    kinds += [each for kind in kinds for each in kind.__subclasses__()]
    assert told == {each.__name__: list(each.fields) for each in kinds}


def test_13_05_running_servers_are_mappings_with_attributes(tmp_path: Path) -> None:
    about = ServerEntry(alias="demo:q4_k_m", url="http://127.0.0.1:8080", state="ready", pid=1, build=None)
    assert (about.pid, about["pid"], about.build) == (1, 1, None)
    assert "alias" in dir(about)
    assert repr(about) == "ServerEntry(alias='demo:q4_k_m', url='http://127.0.0.1:8080', state='ready', pid=1)"
    assert json.loads(json.dumps(about)) == dict(about)
    assert copy.copy(about) == about
    with pytest.raises(AttributeError, match="has no member 'prot'"):
        _ = about.prot
