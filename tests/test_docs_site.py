"""The documentation is built as a site without a warning, with every page and every public class."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import llama_runner
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site, built as `nox -s docs` builds it."""
    site = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return site


def test_every_page_of_the_documentation_is_in_the_site(site: Path) -> None:
    pages = {path.relative_to(REPOSITORY / "docs").with_suffix(".html") for path in REPOSITORY.glob("docs/**/*.md")}
    pages = {page.with_name("index.html") if page.name == "README.html" else page for page in pages}
    assert {page for page in pages if not (site / page).is_file()} == set()
    for name in ("index", "CHANGELOG", "CONTRIBUTING", "PLAN", "SECURITY", "reference"):
        assert (site / f"{name}.html").is_file()


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    text = (site / "reference.html").read_text(encoding="utf-8")
    for name in set(llama_runner.__all__) - {"__version__"}:
        assert re.search(rf'id="llama_runner\.[\w.]+\.{name}"', text), name


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="(https?:)?//|<link[^>]*\shref="(?:https?:)?//', text)
        assert not loaded, page


def test_the_index_links_to_pages_and_not_to_files_of_the_repository(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="docs/' not in text
    assert 'href="serving.html#web-pages"' in text
