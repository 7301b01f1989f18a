"""Imports the files of tests/data/import, and checks that our configuration takes the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_runner.config.config import Config
from llama_runner.config.import_file import import_file, import_text
from llama_runner.config.import_report import Imported, ImportedItem
from llama_runner.config.write_imported import file_text
from tests.conftest import REPOSITORY

DATA = REPOSITORY / "tests" / "data" / "import"
SECRETS = (
    "sk-abcdefghijklmnopqrst",
    "plainsecret",
    "sosecretvalue",
    "hf_abcdefghijklmnopqrstu",
    "topsecret1",
    "hunter22",
)
"""Every secret in the files."""


def imported(file: str, **options: Any) -> Imported:
    """Return the import of a file, as if ours were written beside it."""
    return import_file(DATA / file, target=DATA, **options)


def config_of(found: Imported, directory: Path) -> Config:
    """Return what our configuration reads of an import; the test fails if it has a mistake."""
    path = directory / "llama-runner.toml"
    path.write_text(file_text(found), encoding="utf-8")
    return Config.load(path, environment={"HOME": "/home/me", "HF_TOKEN": ""})


def of_text(text: str | bytes, directory: Path, **options: Any) -> tuple[Config, Imported]:
    """Return the configuration and the import of a text."""
    found = import_text(text, base=directory, target=directory, **options)
    return config_of(found, directory), found


def items(found: Imported, text: str) -> list[ImportedItem]:
    """Return the items of the report that begin with a text."""
    return [item for item in found.items if item.text.startswith(text)]
