"""How the tests are arranged."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY


def test_no_test_module_imports_from_another() -> None:
    pattern = re.compile(r"^\s*from tests\.(?:\w+\.)*test_\w+ import|^\s*import tests\.(?:\w+\.)*test_", re.MULTILINE)
    bad = [path.name for path in (REPOSITORY / "tests").rglob("*.py") if pattern.search(path.read_text())]
    assert not bad, "what several modules use is a fixture of conftest.py or a module without test_ in its name"
