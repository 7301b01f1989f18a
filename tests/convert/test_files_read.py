"""Which files our own conversion reads: what is not declared as read does not count when a model changes."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_runner.convert import convert
from llama_runner.core.converter_choice import ConverterChoice
from llama_runner.core.files_of_model_directory import (
    MODULES,
    UNREAD,
    is_read_by_native_converter,
    relevant_card_digest,
)
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.request.conversion_graph import Conversion
from llama_runner.request.requested_adapters import RequestedAdapter
from llama_runner.sources.local import LocalSafetensors
from tests.conftest import Command
from tests.engine.toys import Toy

PACKAGE = Path(__file__).parents[2] / "llama_runner" / "convert"

OF_OTHERS = {
    "adapter_config.json", "adapter_model.safetensors",  # of LoRA adapters, which llama.cpp's own script converts
}  # fmt: skip


FILE = re.compile(r"(?!tokenizer\.ggml)[\w.]+\.(json|jinja|txt|model|md|tiktoken)")


def test_11_22_every_file_that_the_source_code_names_is_declared() -> None:
    nodes = [node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    named = {text for text in texts if FILE.fullmatch(text)}
    assert {"config.json", "tokenizer.model", "chat_template.jinja"} < named
    assert {name for name in named - OF_OTHERS if not is_read_by_native_converter(name, {MODULES}, None)} == set()
    assert not texts & UNREAD, "keys that are said to be unread"


READ = """
import json, os, sys
from pathlib import Path
directory, target = map(Path, sys.argv[1:])
opened = set()
def note(name, arguments):
    if name == "open" and str(arguments[0]).startswith(f"{directory}{os.sep}"):
        opened.add(Path(arguments[0]).relative_to(directory).as_posix())
sys.addaudithook(note)
from llama_runner.convert import convert
convert(directory, target, name="m")
json.dump(sorted(opened), sys.stdout)
"""


def test_11_22_every_file_that_is_opened_is_declared(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / "model")
    for name in ("eval_results.json", "trainer_state.json", "preprocessor_config.json", "notes.md"):
        (model / name).write_text("{}")
    (model / "other").mkdir()
    (model / "other" / "config.json").write_text("{}")
    command = [sys.executable, "-c", READ, str(model), str(tmp_path / "out.gguf")]
    opened = set(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert "config.json" in opened
    there = {path.relative_to(model).as_posix() for path in model.rglob("*")}
    assert opened <= {name for name in there if is_read_by_native_converter(name, there, None)}


READ_TWICE = """
import collections, json, sys
from pathlib import Path
directory, target, name, changed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
opened = collections.Counter()
sys.addaudithook(lambda event, given: opened.update([Path(str(given[0])).name]) if event == "open" else None)
from llama_runner.convert import convert, inspect
inspect(directory)
if changed:
    config = directory / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": changed}))
found = convert(directory, target, name=name)
json.dump([opened, found.sha256], sys.stdout)
"""


def inspected_and_converted(model: Path, name: str, changed: str = "") -> tuple[dict[str, int], str]:
    """How often each file is opened by one process, and the SHA-256 of what it writes."""
    target = model.parent / "out.gguf"
    command = [sys.executable, "-c", READ_TWICE, str(model), str(target), name, changed]
    opened, sha256 = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    target.unlink()
    return opened, sha256


def test_20_02_a_conversion_does_not_read_again_what_its_inspection_has_read(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / "m")
    expected = convert(model, tmp_path / "alone.gguf", name="m").sha256
    opened, sha256 = inspected_and_converted(model, "m")
    assert (opened["tokenizer.json"], opened["model.safetensors"]) == (1, 2)  # a header, and the weights
    assert sha256 == expected


def test_20_02_a_conversion_reads_again_what_has_changed_since_its_inspection(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / "m")
    before = convert(model, tmp_path / "before.gguf", name="m").sha256
    _, sha256 = inspected_and_converted(model, "m", "another template")
    assert sha256 == convert(model, tmp_path / "after.gguf", name="m").sha256 != before


def write_anew(path: Path) -> None:
    """Write a JSON file as another tool would: other spaces, other escapes, another version of transformers."""
    value = json.loads(path.read_text())
    if "transformers_version" in value:
        value["transformers_version"] = "99.0"
    path.write_text(json.dumps(value, indent=7, ensure_ascii="\\u" not in path.read_text()))


def test_11_22_what_does_not_count_changes_no_byte(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / "model")
    before = convert(model, tmp_path / "before.gguf", name="m").sha256
    (model / "eval_results.json").write_text('{"accuracy": 1}')
    (model / "consolidated.safetensors").write_bytes(b"not even safetensors")
    for path in model.glob("*.json"):
        write_anew(path)
    with (model / "README.md").open("a") as card:
        card.write("\n---\nlicense: other\n---\n# More\n")
    assert convert(model, tmp_path / "after.gguf", name="m").sha256 == before


LINES = ("---", "license: mit", "tags:", "- no", "- a", "\t- b", "# text", "", " ---", "--- ", "\x85", "\u2028")
CARDS = st.lists(st.sampled_from(LINES), max_size=8).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n", "\r"]).map(lambda end: end.join(lines))
)


def as_gguf_reads_it(card: str) -> object:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "README.md").write_bytes(card.encode())
        try:
            return gguf.Metadata.load_model_card(Path(directory))
        except (yaml.YAMLError, AttributeError) as error:
            return type(error)


@settings(max_examples=300, deadline=None)
@given(CARDS, CARDS)
def test_11_22_cards_whose_parts_are_equal_are_read_equally(one: str, other: str) -> None:
    other = one + other if one.count("---") > 1 else other
    if relevant_card_digest(one.encode()) == relevant_card_digest(other.encode()):
        assert as_gguf_reads_it(one) == as_gguf_reads_it(other)
    if not relevant_card_digest(one.encode()):
        assert as_gguf_reads_it(one) == {}


@pytest.mark.parametrize(
    "card", [b"", b"# only text", b"\xef\xbb\xbf---\nlicense: mit\n---\n", b"text\n---\na: b\n---\n"]
)
def test_11_22_a_card_without_front_matter_does_not_count(card: bytes) -> None:
    assert relevant_card_digest(card) == ""


def test_11_22_a_projector_and_an_adapter_depend_on_every_file_that_the_script_may_read(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    model = LocalSafetensors(tmp_path, "m", converted_here=True)
    conversion = Conversion(
        model, "m", 0, ConverterChoice(official=False, architecture="X"), Toy("tree"), None, trusted=False
    )
    (adapter,) = conversion.adapters([RequestedAdapter("a", 1.0, LocalSafetensors(tmp_path / "adapter", "adapter"))])
    for read in (conversion.projector("auto").model, adapter.base):  # type: ignore[union-attr]
        assert isinstance(read, LocalSafetensors)
        assert (read.path, read.converted_here) == (tmp_path, False)
    assert conversion.base("auto").model is model


def test_11_22_adding_results_editing_the_card_s_text_and_formatting_json_converts_nothing(
    llama_runner: Command, tmp_path: Path
) -> None:
    root, model = tmp_path / "root", shutil.copytree(MODEL_DIRECTORY, tmp_path / "model")
    (made,) = llama_runner("convert", model, "--root", root, "--json").json
    (model / "eval_results.json").write_text("{}")
    with (model / "README.md").open("a") as card:
        card.write("\nMore text.\n")
    for path in model.glob("*.json"):
        write_anew(path)
    planned = llama_runner("plan", model, "--root", root, "-q", "auto", "--json").json
    assert [step["action"] for step in planned["steps"] if step["name"] == "convert"] == ["skip"]
    assert str(planned["source"]["revision"]) in made["path"]
    for _ in range(2):
        (again,) = llama_runner("convert", model, "--root", root, "--json").json
        assert (again["ran"], again["path"]) == (False, made["path"])
    (model / "README.md").write_text("---\nlicense: other\n---\n")
    (other,) = llama_runner("convert", model, "--root", root, "--json").json
    assert (other["ran"], other["path"] == made["path"]) == (True, False)
