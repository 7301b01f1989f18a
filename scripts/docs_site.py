"""What mkdocs.yml leaves to code: pages outside of docs/, the reference of the package, links to source files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

import llama_runner

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "index.md": "README.md",
    **{name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "PLAN.md", "SECURITY.md")},
}
"""Pages of the site that are files of the repository's root."""
FIRST = ("Runner", "ServerOptions", "Server", "RunningServer", "Client", "AsyncClient")
"""The names that the reference begins with; the others follow by name."""
LINK = re.compile(r"\[([^\]\n]+)\]\((?!https?:|#)([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for uri, name in OUTSIDE.items():
        files.append(File.generated(config, uri, content=(REPOSITORY / name).read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference.md", content=reference()))
    for file in files.documentation_pages():
        if file.src_uri.startswith("decisions/0"):
            file.inclusion = type(file.inclusion).NOT_IN_NAV  # decisions/README.md lists them
    return files


def reference() -> str:
    """Return the page that mkdocstrings fills."""
    head = "# Reference\n\nWhat `llama_runner` exports. The public modules are [listed](python.md#what-is-public).\n"
    modules = {name: module for module, names in llama_runner._WHERE.items() for name in names}  # noqa: SLF001
    others = sorted(set(llama_runner.__all__) - {*FIRST, "__version__"})
    return head + "".join(f"\n::: {modules[name]}.{name}\n" for name in (*FIRST, *others))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site; a link to a file that is none becomes its text."""
    del config
    at = REPOSITORY / ("docs" if page.file.src_uri not in OUTSIDE else "") / Path(page.file.src_uri).parent
    if page.file.src_uri == "index.md":
        at = REPOSITORY
    up = "../" * page.file.src_uri.count("/")

    def follow(found: re.Match[str]) -> str:
        text, target = found.groups()
        name, hash_sign, anchor = target.partition("#")
        path = (at / name).resolve()
        uri = next((uri for uri, outside in OUTSIDE.items() if path == REPOSITORY / outside), None)
        if uri is None and path.is_relative_to(REPOSITORY / "docs"):
            uri = path.relative_to(REPOSITORY / "docs").as_posix()
        if uri is not None and files.get_file_from_path(uri):
            return f"[{text}]({up}{uri}{hash_sign}{anchor})"
        return text if path.exists() else found[0]

    return LINK.sub(follow, markdown)
