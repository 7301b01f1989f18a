"""The manifest of an artifact in a remote store is untrusted: nothing of it leads out of the artifact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.core.artifact_record import InvalidRecord
from llama_runner.core.digest import Key, key_of, tree_digest
from llama_runner.remote import manifest
from tests.remote.worlds import Machine, graph

SHA = "ab" * 32


def a_tree(*files: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of a directory that is right but for what the files say."""
    recipe = {"step": "toy_tree", "version": 1, "params": {"salt": 1}, "inputs": {}}
    entries = [(f["path"], f["kind"], f["target"] if f["kind"] == "l" else f["digest"]) for f in files]
    output = {"digest": tree_digest(entries), "bytes": sum(f.get("bytes", 0) for f in files), "stamp": {}}
    return {
        "schema": 1,
        "record": {"key": key_of(recipe), "recipe": recipe, "output": output},
        "part_bytes": 1000,
        "files": list(files),
    }


def a_file(path: str = "program", **changed: Any) -> dict[str, Any]:
    return {"path": path, "kind": "f", "bytes": 1500, "digest": f"sha256:{SHA}", "parts": [SHA, SHA], **changed}


def a_link(path: str, target: str) -> dict[str, Any]:
    return {"path": path, "kind": "l", "target": target}


def parsed(value: Any) -> Any:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    key = Key(value["record"]["key"]) if isinstance(value, dict) else Key(f"k1:{SHA}")
    return manifest.parse_manifest(content, key, is_tree=True)


def test_a_manifest_that_is_right_is_accepted() -> None:
    found = parsed(a_tree(a_file("lib/a"), a_file("x", kind="x"), a_link("lib/b", "a"), a_link("lib/c", "../x")))
    assert [file.path for file in found.files] == ["lib/a", "x", "lib/b", "lib/c"]


@pytest.mark.parametrize(
    "path",
    [
        *("../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a/.", "", ".", "..", "a\\..\\x", "C:/x", "C:x", "a\0b"),
        *(
            "a\x1b[2J",
            "\u202ea",
            ".state.json",
            "lib/.state.json",
            "a" * 256,
            "a/" * 600 + "a",
            "a.",
            "a ",
            "a|b",
            "a?",
        ),
        *("nul:", "a\nb", "\ud800"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidRecord):
        parsed(a_tree(a_file(path)))


@pytest.mark.parametrize("target", ["/etc", "../x", "../../x", "a/../../x", "", "C:/x", "..\\x", "b/../../../x"])
def test_a_link_that_leads_elsewhere_is_refused(target: str) -> None:
    with pytest.raises(InvalidRecord):
        parsed(a_tree(a_file(), a_link("link", target)))


@pytest.mark.parametrize(
    "files",
    [
        [a_file("a"), a_file("a")],
        [a_file("a"), a_file("A")],
        [a_file("a"), a_file("a/b")],
        [a_file("a/b"), a_file("a")],
        [a_link("a", "b"), a_file("a/c")],
    ],
)
def test_two_files_that_are_one_are_refused(files: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidRecord):
        parsed(a_tree(*files))


@pytest.mark.parametrize(
    "changed",
    [
        {"bytes": -1},
        {"bytes": 1500.0},
        {"bytes": True},
        {"bytes": 1 << 80},
        {"bytes": 5000},
        {"parts": [SHA]},
        {"parts": ["../" + SHA[3:], SHA]},
        {"parts": [SHA.upper(), SHA]},
        {"parts": [1, 2]},
        {"parts": {}},
        {"digest": "sha256:x"},
        {"digest": f"sha256:{SHA}\n"},
        {"kind": "d"},
        {"path": 1},
    ],
)
def test_a_file_that_is_described_wrongly_is_refused(changed: dict[str, Any]) -> None:
    value = a_tree(a_file())
    value["files"][0].update(changed)
    with pytest.raises(InvalidRecord):
        parsed(value)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(schema=2),
        lambda value: value.update(record=[]),
        lambda value: value.update(files=None),
        lambda value: value.update(part_bytes=0),
        lambda value: value.update(part_bytes=1 << 40),
        lambda value: value["record"].update(key="k2:x"),
        lambda value: value["record"]["recipe"].update(version=2),
        lambda value: value["record"]["recipe"].update(version=1.5),
        lambda value: value["record"]["output"].update(bytes=1),
        lambda value: value["record"]["output"].update(digest=f"sha256:{SHA}"),
        lambda value: value["files"].append(a_file("another")),
        lambda value: value["files"].append("text"),
        lambda value: value["files"][0].update(kind="x"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    value = a_tree(a_file())
    change(value)
    with pytest.raises(InvalidRecord):
        manifest.parse_manifest(json.dumps(value).encode(), Key(a_tree(a_file())["record"]["key"]), is_tree=True)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"null", b"1e999", b"\xff", b'{"schema": 1}'])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidRecord):
        parsed(content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_whatever_json_is_refused_by_one_error(value: Any) -> None:
    for content in (value, {"schema": 1, "record": value, "part_bytes": 1, "files": value}):
        with pytest.raises(InvalidRecord):
            manifest.parse_manifest(json.dumps(content).encode(), Key(f"k1:{SHA}"), is_tree=False)


@pytest.mark.parametrize("key", ["k1:..", "k1:" + "/" * 64, "k1:" + SHA + "/..", "k2:" + SHA, ""])
def test_names_are_made_of_keys_only(key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        manifest.manifest_name(Key(key))


def test_hostile_facts_and_tools_do_not_get_into_a_record(tmp_path: Path) -> None:
    maker = Machine(tmp_path / "maker", tmp_path / "shared", pushes=True)
    maker.execute(graph(maker))
    for path in (tmp_path / "shared").rglob("*.json"):
        value = json.loads(path.read_text())
        value["record"]["noted"] = {"c": {"path": "/bin/sh", "identity": "x", "stamp": {}}, "gpus": {}}
        value["record"]["made"] = {"at": "x" * 10_000, "seconds": "long", "kept": False, "log": "../../etc/passwd"}
        value["record"]["source"] = {"kind": "hf", "ref": "/etc"}
        path.write_text(json.dumps(value))
    user = Machine(tmp_path / "user", tmp_path / "shared")
    outcome = user.execute(graph(user))
    assert user.ran() == []
    for step in outcome.fetched:
        record = user.store.record(outcome.places[step])
        assert record is not None
        assert record.noted == {}
        assert len(record.made["at"]) == 100
        assert record.made.keys() == {"fetched", "kept", "log", "at"}
        assert record.made["log"] is None
        assert record.source.get("ref") != "/etc"
