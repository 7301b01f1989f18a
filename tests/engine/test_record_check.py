"""A record of another store is believed only if it agrees with itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llama_runner.core.artifact_record import InvalidRecord, Record, Stamp, parse_state
from llama_runner.core.digest import Digest, Key, key_of, tree_digest
from llama_runner.store.record_check import check_record

A, B = (f"sha256:{letter * 64}" for letter in "ab")


def record(step: str = "quantize", digest: str = A, **params: Any) -> Record:
    recipe: dict[str, Any] = {"step": step, "version": 1, "params": params, "inputs": {}}
    return Record(key_of(recipe), recipe, Digest(digest), 5, Stamp())


def test_14_09_a_record_is_believed_whose_key_follows_from_its_recipe(binaries: Path) -> None:
    check_record(record(type="q4_k_m"))
    checked = 0
    for state in binaries.glob("*/*/*/.state.json"):
        for found in parse_state(state.read_bytes()).records.values():
            check_record(found)
            checked += 1
    assert checked, "records of the real pipeline"


def test_14_09_a_record_with_another_key_or_recipe_is_not_believed() -> None:
    with pytest.raises(InvalidRecord, match=r"its key is k1:0+, and its recipe gives k1:"):
        check_record(record().replace(key=Key("k1:" + 64 * "0")))
    with pytest.raises(InvalidRecord, match="and its recipe gives"):
        check_record(record(type="q4_k_m").replace(recipe=record(type="q8_0").recipe))
    with pytest.raises(InvalidRecord, match="its recipe has no key"):
        check_record(record().replace(recipe={"step": "quantize", "params": {"type": 0.5}}))
    with pytest.raises(InvalidRecord, match="its size is -1"):
        check_record(record().replace(bytes=-1))
    deep = json.loads("[" * 800 + "]" * 800)
    with pytest.raises(InvalidRecord, match=r"and its recipe gives|has no key"):
        check_record(record().replace(recipe={"params": {"x": deep}}))


def test_14_09_a_downloaded_file_has_the_digest_that_its_recipe_names() -> None:
    check_record(record("download", A, files=[["m.gguf", A]]))
    check_record(record("download", tree_digest([("m", "f", A), ("n", "f", B)]), files=[["m", A], ["n", B]]))
    check_record(record("download", B, files=[["config.json", "blob:" + 40 * "0"]]))
    with pytest.raises(InvalidRecord, match=f"its digest is {B}, and its recipe names {A}"):
        check_record(record("download", B, files=[["m.gguf", A]]))
    with pytest.raises(InvalidRecord, match="names files in another form"):
        check_record(record("download", A, files=[[1, A]]))
