"""The page about architectures says what the goldens hold, and every architecture has enough of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llama_runner.convert.families import ARCHITECTURES
from tests.convert.official import PROJECTORS
from tests.convert.table import DOCUMENT, SOURCES, TYPES, Compared, compared, document

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compared]:
    return compared(tmp_path_factory.mktemp("checkpoints"))


def test_the_page_is_up_to_date(found: dict[str, Compared], tmp_path: Path) -> None:
    assert document(found, compared(tmp_path, [PROJECTORS])) == DOCUMENT.read_text(encoding="utf-8"), (
        "run tests/data/convert/make_table.py"
    )


def test_every_architecture_is_compared(found: dict[str, Compared]) -> None:
    assert set(found) == set(ARCHITECTURES)


@pytest.mark.parametrize("family", sorted(set(ARCHITECTURES.values())))
def test_every_family_is_compared_for_all_types_from_all_types_in_one_file_and_several(
    family: str, found: dict[str, Compared]
) -> None:
    entries = [found[name] for name, value in ARCHITECTURES.items() if value == family]
    assert set().union(*(entry.types for entry in entries)) == set(TYPES)
    assert set(SOURCES) <= set().union(*(entry.sources for entry in entries))
    assert set().union(*(entry.options["files"] for entry in entries)) == {"one file", "several files"}
