"""docs/architecture.md and PLAN.md name packages and files that exist, and the ladder that the tests hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.ladder import LADDER, PACKAGE

ARCHITECTURE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
DECISIONS = REPOSITORY / "docs" / "decisions"
PAGES = [REPOSITORY / "PLAN.md", REPOSITORY / "docs" / "architecture.md", *sorted(DECISIONS.glob("*.md"))]
ELSEWHERE = {"convert_hf_to_gguf.py", "work/", "bins/", "models/", "vendor/", "logs/"}
"""Of llama.cpp's tree, or below the root of a store."""


def test_the_ladder_in_the_docs_is_the_one_that_is_held() -> None:
    [drawn] = re.findall(r"```text\n(.*?)```", ARCHITECTURE, re.DOTALL)
    assert [frozenset(line.split()) for line in reversed(drawn.splitlines())] == list(LADDER)


def test_every_package_has_a_row() -> None:
    rows = set(re.findall(r"^\| `([a-z_]+)/` \|", ARCHITECTURE, re.MULTILINE))
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rows == packages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:/|\.py|\.cmake|\.md))`", text)) - ELSEWHERE:
        places = (PACKAGE / name, REPOSITORY / name, *PACKAGE.glob(f"*/{name}"))
        assert any(place.exists() for place in places), f"{name} in {page}"


def test_every_decision_is_listed_and_has_its_parts() -> None:
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    files = sorted(path for path in DECISIONS.glob("[0-9]*.md"))
    assert [path.name[:4] for path in files] == [f"{number:04d}" for number in range(1, len(files) + 1)]
    for path in files:
        assert f"({path.name})" in index
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
        assert re.search(r"^Date: \d{4}-\d\d-\d\d\. Status: ", text, re.MULTILINE)
