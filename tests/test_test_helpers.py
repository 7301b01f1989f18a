"""How the tests are arranged."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY


def test_no_test_module_imports_from_another() -> None:
    pattern = re.compile(r"^\s*from tests\.(?:\w+\.)*test_\w+ import|^\s*import tests\.(?:\w+\.)*test_", re.MULTILINE)
    bad = [path.name for path in (REPOSITORY / "tests").rglob("*.py") if pattern.search(path.read_text())]
    assert not bad, "what several modules use is a fixture of conftest.py or a module without test_ in its name"


def test_no_private_attribute_is_replaced() -> None:
    allowed = {"test_ready.py"}  # a stop between "ready" and its event: no program can hit that moment
    pattern = re.compile(r"monkeypatch\.setattr\((?:\w+, \"_|\"[\w.]+\._)[a-zA-Z]")
    bad = {path.name for path in (REPOSITORY / "tests").rglob("*.py") if pattern.search(path.read_text())}
    assert bad == allowed, "change what the program or file at the other end does, or a public limit"
