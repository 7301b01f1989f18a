"""`config export`: files for llama-swap and llama.cpp's router, and what they cannot express."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.config.export_file import FORMATS, export_config
from llama_runner.config.export_models import Exported
from llama_runner.config.import_file import import_text
from llama_runner.config.import_ini import canonical_name
from llama_runner.config.paths_of_imported_file import with_variables
from llama_runner.config.read_config_file import can_be_name
from llama_runner.core.errors import UsageError
from tests.config.exports import config_with, specs_of
from tests.config.imports import config_of
from tests.fuzzing import bounded


def exported(models: dict[str, Any], directory: Path, to: str, **tables: Any) -> Exported:
    """Return an export."""
    config = config_with(models, directory, **tables)
    return export_config(config, specs_of(config), to, windows=False)


def notes(found: Exported) -> list[str]:
    """Return the lines of the report."""
    return [f"{item.model}.{item.key}: {item.note}" for item in found.items]


MODEL = {"source": "/m/a.gguf", "ctx_size": 512}


def test_a_command_of_llama_swap_starts_the_prepared_llama_server(tmp_path: Path) -> None:
    found = exported({"a": {**MODEL, "llama": {"parallel": 2, "mmap": False}}}, tmp_path, "llama-swap")
    assert yaml.safe_load(found.text)["models"]["a"] == {
        "cmd": "'/opt/llama cpp/llama-server'\n--host 127.0.0.1\n--port ${PORT}\n--model /m/a.gguf\n--ctx-size 512\n"
        "--no-mmap\n--parallel 2\n"
    }
    assert found.items == ()


def test_life_cycle_names_and_variants_become_keys_of_llama_swap(tmp_path: Path) -> None:
    model = {
        **MODEL,
        "aliases": ["b"],
        "ttl": "5m",
        "hidden": True,
        "pin": True,
        "preload": True,
        "load_timeout": 90,
        "variants": {"fast": {"sampling": {"temperature": 0.1}, "template": {"enable_thinking": False}}},
    }
    document = yaml.safe_load(exported({"a": model}, tmp_path, "llama-swap").text)
    assert document.pop("models")["a"] | {"cmd": ""} == {
        "cmd": "",
        "aliases": ["b"],
        "ttl": 300,
        "unlisted": True,
        "filters": {
            "setParamsByID": {"a:fast": {"temperature": 0.1, "chat_template_kwargs": {"enable_thinking": False}}}
        },
    }
    assert document == {
        "healthCheckTimeout": 90,
        "groups": {"pinned": {"swap": False, "exclusive": False, "persistent": True, "members": ["a"]}},
        "hooks": {"on_startup": {"preload": ["a"]}},
    }


def test_a_preset_file_has_a_section_for_each_model(tmp_path: Path) -> None:
    found = exported({"a": {**MODEL, "preload": True, "aliases": ["b"], "llama": {"mmap": False}}}, tmp_path, "ini")
    assert found.text == (
        "version = 1\n\n[a]\nmodel = /m/a.gguf\nctx-size = 512\nno-mmap = true\nload-on-startup = true\nalias = b\n"
    )


@pytest.mark.parametrize(
    ("value", "why"),
    [("x # y", "has # or ;"), ("x;y", "has # or ;"), (" x", "spaces at its ends"), ("", "empty"), ("x\ny", "control")],
)
def test_a_value_that_llama_cpp_would_read_otherwise_is_left_out_and_reported(
    value: str, why: str, tmp_path: Path
) -> None:
    found = exported({"a": {**MODEL, "llama": {"chat-template": value}}}, tmp_path, "ini")
    assert "chat-template" not in found.text
    assert why in notes(found)[0]


@pytest.mark.parametrize(("to", "path"), [("ini", "/m/a#b.gguf"), ("llama-swap", "/m/$${x}.gguf")])
def test_a_model_whose_path_cannot_be_written_is_left_out(to: str, path: str, tmp_path: Path) -> None:
    found = exported({"a": {"source": path}, "b": MODEL}, tmp_path, to)
    assert found.models == ("b",)
    assert notes(found)[0].startswith("a.source: left out: /m/")


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("llama3.1:8b", "llama3.1-8b"),
        ("M:Q4_K_M", "M:Q4_K_M"),
        ("default", "model-default"),
        ("a]b", "a-b"),
        ("*", "model-*"),
    ],
)
def test_a_name_that_llama_cpp_changes_is_written_as_an_alias(name: str, section: str, tmp_path: Path) -> None:
    found = exported({name: MODEL}, tmp_path, "ini")
    assert f"[{section}]" in found.text
    assert (f"alias = {name}" in found.text) == (section != name)
    assert bool(notes(found)) == (section != name)
    assert canonical_name(section) == section


def test_what_has_no_counterpart_is_reported(tmp_path: Path) -> None:
    model = {
        **MODEL,
        "system": "x",
        "sessions": True,
        "api_key_file": "k",
        "ttl": 5,
        "pin": True,
        "hidden": True,
        "adapters": {"x": {"path": "x.gguf"}},
        "variants": {"v": {"system": "y"}},
    }
    keys = [item.key for item in exported({"a": model}, tmp_path, "ini").items]
    assert keys == ["api_key_file", "sessions", "system", "adapters.x", "pin", "ttl", "hidden", "variants.v"]
    keys = [item.key for item in exported({"a": model}, tmp_path, "llama-swap").items]
    assert keys == ["api_key_file", "sessions", "system", "adapters.x", "variants.v"]


def test_models_that_are_not_prepared_are_left_out(tmp_path: Path) -> None:
    config = config_with({"a": MODEL, "b": MODEL}, tmp_path)
    specs = {**specs_of(config), "a": "llama-runner prepare a has work to do"}
    found = export_config(config, specs, "ini")
    assert (found.models, notes(found)) == (("b",), ["a.: left out: llama-runner prepare a has work to do"])
    with pytest.raises(UsageError, match="no model can be exported: a: left out"):
        export_config(config, {"a": "llama-runner prepare a has work to do"}, "ini")
    with pytest.raises(UsageError, match="no export to 'toml'"):
        export_config(config, specs, "toml")


_CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Co", "Cn"))
_TEXT = st.text(_CHARACTERS, min_size=1, max_size=10)
_PATH = st.text(string.ascii_letters + " -_.'\"()&é#;", min_size=1, max_size=10).map(lambda text: f"/m/{text}.gguf")
_NAME = _TEXT.filter(can_be_name)
_MODEL = st.fixed_dictionaries(
    {"source": _PATH},
    optional={
        "ctx_size": st.one_of(st.integers(1, 1 << 20), st.just("auto")),
        "gpu_layers": st.one_of(st.integers(0, 99), st.sampled_from(["auto", "all"])),
        "threads": st.integers(1, 64),
        "lora": st.lists(
            st.sampled_from(["/l/a.gguf", "/l/b,c.gguf", '/l/"d".gguf']), min_size=1, max_size=2, unique=True
        ),
        "projector": st.just(False),
        "preload": st.booleans(),
        "llama": st.fixed_dictionaries(
            {},
            optional={
                "parallel": st.integers(1, 8),
                "mmap": st.booleans(),
                "jinja": st.booleans(),
                "mlock": st.just(True),
                "flash-attn": st.sampled_from(["on", "off", "auto"]),
                "chat-template": _TEXT,
                "rope-freq-base": st.floats(0.5, 1e6, allow_nan=False).map(lambda number: round(number, 3)),
                "-dev": st.just("none"),
            },
        ),
        "sampling": st.dictionaries(st.sampled_from(["temperature", "top_p", "seed"]), st.integers(0, 9), max_size=2),
        "template": st.dictionaries(_NAME, st.one_of(st.booleans(), st.integers(0, 9), _TEXT), max_size=2),
    },
)


@pytest.mark.parametrize("to", FORMATS)
@given(models=st.dictionaries(_NAME, _MODEL, min_size=1, max_size=3))
@bounded(60)
def test_what_is_exported_and_imported_again_starts_the_same_servers(
    models: dict[str, Any], to: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Everything that the report of the export does not name comes back."""
    tmp_path = tmp_path_factory.mktemp("round")
    for model in models.values():
        model.setdefault("ctx_size", 4096)
    escaped: Any = with_variables(models)
    config = config_with(escaped, tmp_path)
    specs = specs_of(config)
    try:
        found = export_config(config, specs, to, windows=False)
    except UsageError:
        return
    again = config_of(import_text(found.text, format=to, base=tmp_path, target=tmp_path), tmp_path)
    for name in found.models:
        lost = {item.key for item in found.items if item.model == name}
        if "aliases" in lost:
            continue  # the name cannot be written
        was, now = config.resolved(name), again.resolved(name)
        assert now.source == was.source
        for key, setting in was.settings.items():
            option = {"template": "chat-template-kwargs"}.get(key.partition(".")[0], key.partition(".")[2] or key)
            if option.replace("-dev", "device") in lost or (key == "preload" and not setting.value):
                continue
            assert now.settings[key].value == setting.value, key
