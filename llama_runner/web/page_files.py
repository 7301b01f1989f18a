"""The files of the page, with what HTTP says of them.

All but the document have the version of the page in their path, so that a browser keeps them for good: another version
has other paths. The document names the version and preloads every module. It contains the stylesheet, so that it is
painted before another file has arrived.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from llama_runner.core.immutable_values import Value
from llama_runner.system.files import read_bounded

PREFIX = "/ui"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer below ``PREFIX``, with the policy of the page."""

_DIRECTORY = Path(__file__).parent / "static"
_DOCUMENT = "index.html"
_STYLE = "style.css"
_LARGEST = 1 << 20
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class PageFile(Value):
    """One file."""

    content: bytes
    type: str
    """Its content type."""


class Page(Value):
    """The page in one version."""

    version: str
    """Identifies the content of all files."""
    policy: str
    """Its ``Content-Security-Policy``, with the hash of the stylesheet."""
    document: PageFile
    files: dict[str, PageFile]
    """The other files by their path below ``/ui/VERSION/``."""


@cache
def page() -> Page:
    """Return the page of this package."""
    found = {
        path.relative_to(_DIRECTORY).as_posix(): PageFile(read_bounded(path, _LARGEST), _TYPES[path.suffix])
        for path in sorted(_DIRECTORY.rglob("*"))
        if path.suffix in _TYPES
    }
    digest = hashlib.sha256()
    for name, file in found.items():
        digest.update(f"{name}\0{len(file.content)}\0".encode() + file.content)
    version = digest.hexdigest()[:12]
    document = found.pop(_DOCUMENT)
    style = found.pop(_STYLE).content
    style_hash = base64.b64encode(hashlib.sha256(style).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'sha256-{style_hash}'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    preloads = "\n".join(
        f'<link rel="modulepreload" href="{PREFIX}/{version}/{name}">' for name in found if name.endswith(".js")
    )
    text = document.content.decode().replace("<!--modules-->", preloads).replace("{version}", version)
    text = text.replace("<!--style-->", f"<style>{style.decode()}</style>")
    return Page(version, policy, PageFile(text.encode(), document.type), found)
