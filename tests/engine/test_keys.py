"""Keys and digests are a contract: these values must never change under the tags ``k1`` and ``tree1``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from llama_runner.core.digest import Digest, canonical_json, key_of, tree_digest
from llama_runner.core.step import Step, keyed_unless_default, recipe_of, step_key
from llama_runner.store.digest_cache import hash_file, hash_tree
from tests.engine.toys import File, Toy


def test_the_canonical_form_has_one_spelling() -> None:
    assert canonical_json({"b": [1, True, None], "a": "ü/\n"}) == b'{"a":"\\u00fc/\\n","b":[1,true,null]}'
    assert canonical_json({"a": (1, 2)}) == canonical_json({"a": [1, 2]})


@pytest.mark.parametrize("value", [1.5, {"a": {1, 2}}, {1: "a"}, [b"bytes"], Path("/")])
def test_what_has_no_single_spelling_cannot_be_keyed(value: object) -> None:
    with pytest.raises(TypeError, match="canonical JSON"):
        canonical_json(value)


def test_golden_key() -> None:
    recipe: dict[str, object] = {
        "step": "quantize",
        "version": 1,
        "params": {"type": "q4_k_m"},
        "inputs": {"model": "sha256:" + "0" * 64},
    }
    assert key_of(recipe) == "k1:d8f571a469bd2878d74d48b3a3f21868604a27e457a2cbbac789ae18e68db269"


def test_golden_digests(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("A")
    (tmp_path / "b" / "run").write_text("B")
    (tmp_path / "b" / "run").chmod(0o755)
    (tmp_path / "link").symlink_to("a")
    assert hash_file(tmp_path / "a") == "sha256:559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd"
    digest, size = hash_tree(tmp_path)
    assert (digest, size) == ("tree1:89b85e22038f968eba691cfc5357d769076a2393f6ce380d7ea7a091a71aeee6", 2)
    assert digest == tree_digest(
        [("link", "l", "a"), ("b/run", "x", hash_file(tmp_path / "b" / "run")), ("a", "f", hash_file(tmp_path / "a"))]
    )


def test_a_recipe_holds_parameters_and_input_digests_and_nothing_else(tmp_path: Path) -> None:
    source = File(tmp_path / "somewhere")
    toy = Toy("name", 3, (source,), journal=tmp_path / "journal", comment="not keyed", tool=Toy("tool"))
    digests = {"above.0": Digest("sha256:aa"), "tool": Digest("sha256:bb")}
    another = Digest("sha256:cc")
    assert recipe_of(toy, digests) == {
        "step": "toy",
        "version": 1,
        "params": {"name": "name", "salt": 3},
        "inputs": {"above.0": "sha256:aa"},
    }
    assert step_key(toy, digests) != step_key(toy, {**digests, "above.0": another})
    assert step_key(toy, digests) == step_key(toy, {**digests, "tool": another})


def test_an_option_that_came_later_changes_no_key_until_it_is_used(tmp_path: Path) -> None:
    class Older(Step):
        name: str
        kind: ClassVar[str] = "step"

    class Newer(Older):
        extra: Step | None = keyed_unless_default(None)
        words: tuple[str, ...] = keyed_unless_default(())

    assert step_key(Newer("a"), {}) == step_key(Older("a"), {})
    assert step_key(Newer("a", words=("x",)), {}) != step_key(Older("a"), {})
    source = File(tmp_path)
    digests = {"extra": Digest("sha256:0")}
    assert recipe_of(Newer("a", source), digests)["inputs"] == digests  # type: ignore[arg-type]
