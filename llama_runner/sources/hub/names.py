"""What the user wrote, as a name on the Hub: repository, revision, what stands after a colon, a file.

    org/model   org/model@REV   org/model:X   org/model@REV:QUANT
    hf://org/model[@REV][/FILE]
    https://huggingface.co/org/model[/tree/REV | /blob/REV/FILE | /resolve/REV/FILE]     (also hf.co, and HF_ENDPOINT)

``:X`` is a revision or a quantization, which only the Hub can tell: ``meaning_of``. Pure, and on the warm path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from llama_runner.core.errors import SourceError, UsageError
from llama_runner.core.value import Value
from llama_runner.sources.hub import listing

if TYPE_CHECKING:
    from collections.abc import Collection

_LONGEST_REPOSITORY = 96
_LONGEST_REVISION = 200
_SHOWN = 12
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co")


class BadName(UsageError):
    """A text that is no name on the Hub."""

    def __init__(self, text: str, why: str) -> None:
        self.text, self.why = _shown(text), why
        super().__init__(
            f"{self.text!r} is not the name of a model: {why}", hint="write ORG/MODEL, ORG/MODEL@REV or ORG/MODEL:QUANT"
        )


class UnknownTag(SourceError):
    """What stands after the colon is neither a revision of the repository nor a quantization."""

    def __init__(self, tag: str, revisions: list[str]) -> None:
        self.tag, self.revisions = tag, revisions
        more = f" and {len(revisions) - _SHOWN} more" if len(revisions) > _SHOWN else ""
        super().__init__(
            f"{tag!r} is neither a revision of that repository nor a quantization; it has the revisions "
            f"{', '.join(revisions[:_SHOWN])}{more}",
            hint=f"quantizations are {', '.join(name.upper() for name in listing.KNOWN)}",
        )


class HubName(Value):
    """A repository, and what of it is meant."""

    repo: str
    revision: str | None = None
    tag: str | None = None
    """What stands after a colon: a revision or a quantization."""
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        if self.file is not None:
            return f"https://huggingface.co/{self.repo}/resolve/{_quoted(self.revision or 'main')}/{self.file}"
        return f"{self.repo}{revision}" + ("" if self.tag is None else f":{self.tag}")


def looks_like_hub_name(text: str) -> bool:
    """Whether a text that is no path here may name a model on the Hub: it has an organisation, or is an address."""
    return "://" in text or text.startswith(_HOSTS) or re.match(r"[^/\s@:]+/[^/\s@:]+(?=$|[@:])", text) is not None


def parse(text: str, *, endpoint: str | None = None) -> HubName:
    """Return the name; ``BadName`` with the reason otherwise. ``endpoint`` is the Hub's address, where it is another.

    A repository may lack the organisation (``gpt2``): the Hub has some of these.
    """
    if len(text) > _LONGEST_REPOSITORY + 2 * _LONGEST_REVISION:
        raise BadName(text, f"it has {len(text)} characters")
    if any(ord(letter) < 0x20 or ord(letter) == 0x7F or letter.isspace() or letter == "\\" for letter in text):  # noqa: PLR2004
        raise BadName(text, "it has spaces, backslashes or control characters")
    rest = _without_host(text, endpoint)
    name = _parse_plain(text, text) if rest is None else _parse_address(text, rest)
    _check(text, name)
    return name


def meaning_of(
    tag: str, *, branches: Collection[str], tags: Collection[str], commits: Collection[str]
) -> Literal["revision", "quantization"]:
    """Say what stands after a colon: an existing revision first, then a known quantization, else ``UnknownTag``."""
    if tag in branches or tag in tags or tag in commits:
        return "revision"
    if listing.quantization_named(tag) is not None:
        return "quantization"
    raise UnknownTag(tag, [*branches, *tags])


def _without_host(text: str, endpoint: str | None) -> str | None:
    """Return what follows the Hub's host in an address; None for a text that is none."""
    if text.startswith("hf://"):
        return text.removeprefix("hf://")
    scheme, separator, rest = text.partition("://")
    if not separator:
        host, slash, path = text.partition("/")
        return path if slash and host in _HOSTS else None
    if scheme not in ("http", "https"):
        raise BadName(text, f"{scheme}:// is not understood")
    own = "" if not endpoint else endpoint.partition("://")[2].strip("/")
    for host in filter(None, (own, *_HOSTS)):
        if rest == host or rest.startswith(f"{host}/"):
            return rest.removeprefix(host).strip("/")
    raise BadName(text, f"{rest.partition('/')[0].rpartition('@')[2]} is not the Hub (HF_ENDPOINT names another one)")


def _parse_address(text: str, rest: str) -> HubName:
    rest = rest.partition("?")[0].partition("#")[0].strip("/")
    kind = rest.partition("/")[0]
    if kind in ("datasets", "spaces", "collections", "papers", "docs", "blog", "kernels", "buckets"):
        raise BadName(text, f"it is one of the Hub's {kind}")
    rest = rest.removeprefix("models/")
    parts = rest.split("/")
    for at in (1, 2):
        if len(parts) > at and parts[at] in ("tree", "blob", "resolve", "raw"):
            return _parse_parts(text, "/".join(parts[:at]), parts[at], parts[at + 1 :])
    if len(parts) > 2 and "@" not in rest:  # noqa: PLR2004 - org/model/file
        return HubName("/".join(parts[:2]), None, None, "/".join(parts[2:]))
    if len(parts) > 2 and "@" in parts[1]:  # noqa: PLR2004
        repo, _, revision = "/".join(parts[:2]).partition("@")
        below = parts[2:]
        if revision == "refs" and len(below) >= 2:  # noqa: PLR2004 - refs/pr/1
            revision, below = "/".join([revision, *below[:2]]), below[2:]
        return HubName(repo, _unquoted(revision), None, "/".join(below) or None)
    return _parse_plain(text, rest)


def _parse_parts(text: str, repo: str, kind: str, rest: list[str]) -> HubName:
    if not rest:
        raise BadName(text, f"a revision is missing after /{kind}/")
    revision, below = _unquoted(rest[0]), rest[1:]
    if revision == "refs" and len(below) >= 2:  # noqa: PLR2004 - refs/pr/1
        revision, below = "/".join([revision, *below[:2]]), below[2:]
    if kind == "tree":  # a folder of the repository is not told apart from all of it
        return HubName(repo, revision)
    if not below:
        raise BadName(text, f"a file is missing after /{kind}/{revision}")
    return HubName(repo, revision, None, _unquoted("/".join(below)))


def _parse_plain(text: str, rest: str) -> HubName:
    repo, at, revision = rest.partition("@")
    named, colon, tag = (revision if at else repo).rpartition(":")
    if colon:
        repo, revision = (repo, named) if at else (named, "")
    else:
        tag = ""
    if (at and not revision) or (colon and not tag):
        raise BadName(text, "something is missing after @ or :")
    if ":" in repo or "@" in revision or ":" in revision:
        raise BadName(text, "it has more than one @ or :")
    return HubName(repo, revision or None, tag or None)


def _check(text: str, name: HubName) -> None:
    parts = name.repo.split("/")
    if not all(parts) or len(parts) > 2:  # noqa: PLR2004 - organisation and model
        raise BadName(text, "an organisation and a model are expected, with one slash between them")
    if len(name.repo) > _LONGEST_REPOSITORY:
        raise BadName(text, f"{name.repo[:20]}… has {len(name.repo)} characters, and no more than 96 are possible")
    for part in parts:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", part) or part.endswith((".", "-", ".git")):
            raise BadName(text, f"{part!r} is no name that the Hub allows")
    if "--" in name.repo or ".." in name.repo:
        raise BadName(text, "-- and .. are not allowed")
    for what in (name.revision, name.tag):
        if what is None:
            continue
        pieces = what.split("/")
        if len(what) > _LONGEST_REVISION or any(piece in ("", ".", "..") for piece in pieces) or what.startswith("-"):
            raise BadName(text, f"{what[:40]!r} is no revision")
    if name.file is not None:
        listing.check_name(name.repo, name.file)


def _unquoted(text: str) -> str:
    from urllib.parse import unquote  # noqa: PLC0415 - for addresses only

    return unquote(text)


def _quoted(text: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415 - for addresses only

    return quote(text, safe="")


def _shown(text: str) -> str:
    """Return what may be said of a text: short, and without the credentials of an address."""
    scheme, separator, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    if separator and "@" in host:
        text = f"{scheme}://…@{host.rpartition('@')[2]}{slash}{path}"
    text = text.partition("?")[0]
    return text if len(text) <= 80 else f"{text[:77]}…"  # noqa: PLR2004
