"""Fuzz target: README.md, of which the front matter becomes metadata."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from tests.convert.cases import CARD
from tests.fuzz import mutate
from tests.fuzz.checkpoints import look
from tests.fuzz.harness import Case, Target, decoded, encoded, explore

BASES = ("cases:bf16", "cases:bert", "cases:llama3")
KEYS = (
    *("license", "license_name", "license_link", "language", "tags", "base_model", "datasets", "pipeline_tag", "name"),
    *("model_creator", "author", "organization", "version", "finetune", "basename", "description", "quantized_by"),
    *("size_label", "url", "doi", "uuid", "repo_url", "source_url", "model_name", "model-index", "library_name"),
    *("base_models", "base_model_sources", "dataset", "languages", "source_doi", "prompt_template", "quantized_from"),
)
PIECES = (
    *(
        "- a\n",
        "  - b\n",
        "[a, b]",
        "{a: b}",
        "&x [1]",
        "*x",
        "!!python/object/apply:os.system [id]",
        "!!binary aGk=",
    ),
    *("2026-01-01", "2026-13-45", "1e999", ".nan", ".inf", "0x_", "0b2", "!!int a", "!!timestamp x", "? a\n: b\n"),
    *("|\n  text\n", ">-\n  text\n", "'", '"', "# x", "---\n", "...\n", "%YAML 9.9\n", "\t", "<<: *x\n", "=: 1\n"),
    *("1:2:3", "190:20:30.15", "~", "null", "yes", "[" * 200, "{" * 200, "- " * 300, "&a [*a]", "\x00", "\x1b[31m"),
)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def _value(rng: Random) -> str:
    how = rng.random()
    if how < 0.4:
        return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 3)))
    if how < 0.8:
        try:
            return json.dumps(mutate.value(rng), ensure_ascii=rng.random() < 0.5)
        except (ValueError, RecursionError):
            return "x"
    return mutate.text(rng)


def generate(rng: Random) -> Case:
    """Make a model card with front matter."""
    how = rng.random()
    if how < 0.2:
        text = decoded(mutate.raw(rng, CARD.encode()))
    elif how < 0.21:
        text = f"---\n{BOMB}license: *i\ntags: *i\n---\n"
    else:
        lines = [f"{rng.choice(KEYS)}: {_value(rng)}" for _ in range(rng.randrange(5))]
        text = rng.choice(("---\n", "---\n", "---\n", "--- \n", "\ufeff---\n", "")) + "\n".join(lines)
        text += rng.choice(("\n---\n# x\n", "\n---\n", "\n--- x\n", "\n", "\r\n---\r\n"))
    return {"base": rng.choice(BASES), "files": {"README.md": decoded(encoded(text))}}


def check(case: Case, scratch: Path) -> None:
    """Look at the checkpoint."""
    del scratch
    look(case["base"], case["files"])


TARGET = Target("model_card", generate, check)


def run(seconds: float, seed: int) -> dict[str, Any]:
    """Run the target; see `harness.explore`."""
    return explore(TARGET, seconds, seed)
