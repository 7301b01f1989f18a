"""What the value of ``--lora`` means."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.core.errors import UsageError
from llama_runner.sources.parse_lora_option import is_local, parse_adapter, parse_adapters
from llama_runner.system.platforms import IS_WINDOWS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.gguf", ("a", "a.gguf", 1.0)),
        ("/x/a b.gguf", ("a-b", "/x/a b.gguf", 1.0)),
        ("legal=/x/a.gguf", ("legal", "/x/a.gguf", 1.0)),
        ("legal=/x/a.gguf:0.5", ("legal", "/x/a.gguf", 0.5)),
        ("/x/a.gguf:-1e-1", ("a", "/x/a.gguf", -0.1)),
        ("/x/a.gguf:.5", ("a", "/x/a.gguf", 0.5)),
        ("/x/a:b.gguf", ("a-b", "/x/a:b.gguf", 1.0)),
        ("/x/a:b.gguf:2", ("a-b", "/x/a:b.gguf", 2.0)),
        ("C:\\x\\a.gguf", ("a", "C:\\x\\a.gguf", 1.0)),
        ("C:/x/a.gguf", ("a", "C:/x/a.gguf", 1.0)),
        ("legal=C:\\x\\a.gguf:0.5", ("legal", "C:\\x\\a.gguf", 0.5)),
        ("c:1", ("1", "c:1", 1.0) if IS_WINDOWS else ("c-1", "c:1", 1.0)),  # a drive there
        ("org/name", ("name", "org/name", 1.0)),
        ("legal=org/name@v1:0.5", ("legal", "org/name@v1", 0.5)),
        ("hf://org/name/file.gguf:0.5", ("file", "hf://org/name/file.gguf", 0.5)),
        ("legal=./checkpoint-500", ("legal", "./checkpoint-500", 1.0)),
        ("a=b=c.gguf", ("a", "b=c.gguf", 1.0)),
        ("/x=y/a.gguf", ("a", "/x=y/a.gguf", 1.0)),
    ],
)
def test_a_value_has_a_name_a_place_and_a_scale(text: str, expected: tuple[str, str, float]) -> None:
    found = parse_adapter(text)
    assert (found.name, found.where, found.scale) == expected


@pytest.mark.parametrize("name", ["x=y.gguf", "y.gguf:0.5", "n=y.gguf:2"])
def test_a_path_that_is_there_is_that_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).touch()
    assert parse_adapter(name, tmp_path).where == name
    assert parse_adapter(name).where != name
    monkeypatch.chdir(tmp_path)
    assert (parse_adapter(name).where, parse_adapter(name).scale) == (name, 1.0)


def test_a_named_path_that_is_there_has_no_scale(tmp_path: Path) -> None:
    (tmp_path / "y:2").touch()
    found = parse_adapter(f"legal={tmp_path}/y:2")
    assert (found.name, found.where, found.scale) == ("legal", f"{tmp_path}/y:2", 1.0)
    assert parse_adapter(f"legal={tmp_path}/y:2:3").scale == 3.0


@pytest.mark.parametrize("text", ["", "legal=", "ab:1e999", " "])
def test_what_names_no_adapter_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="names no adapter"):
        parse_adapter(text)


def test_names_that_are_not_given_are_different() -> None:
    found = parse_adapters(["one/adapter.gguf", "two/adapter.gguf", "adapter-2=x", "three/adapter.gguf"])
    assert [each.name for each in found] == ["adapter", "adapter-3", "adapter-2", "adapter-4"]
    with pytest.raises(UsageError, match="two adapters are called 'x'"):
        parse_adapters(["x=a", "x=b"])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("a.gguf", True),
        ("org/name.gguf", True),
        ("./org", True),
        ("a/b/c", True),
        ("C:\\x", True),
        ("directory", True),
        ("org/name", False),
        ("org/name@v1", False),
        ("hf://org/name/file.gguf", False),
        ("https://huggingface.co/org/name", False),
    ],
)
def test_a_name_on_the_hub_is_told_from_a_path(where: str, expected: bool) -> None:
    assert is_local(where) is expected


def test_a_directory_that_is_called_like_a_name_on_the_hub_is_the_directory(tmp_path: Path) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert is_local("org/name", tmp_path)
