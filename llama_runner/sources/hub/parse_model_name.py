"""Parses names of models on the Hub: repository, revision, tag, file.

    org/model   org/model@REV   org/model:X   org/model@REV:QUANT
    hf://org/model[@REV][/FILE]
    https://huggingface.co/org/model[/tree/REV[/FOLDER] | /blob/REV/FILE | /resolve/REV/FILE]
    the same with hf.co, www., the address in HF_ENDPOINT, and without https://; [:QUANT] after a repository

``:X`` is a revision or a quantization, which depends on the repository: ``classify_tag``. Pure, and on the warm path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from llama_runner.core.errors import LlamaRunnerError, SourceError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.sources import quantization_types
from llama_runner.sources.hub import file_names

if TYPE_CHECKING:
    from collections.abc import Collection

_LONGEST = 2000
_LONGEST_REPOSITORY = 96
_LONGEST_REVISION = 200
_SHOWN = 12
_HOSTS = ("huggingface.co", "hf.co")
_KINDS = ("datasets", "spaces", "collections", "papers", "docs", "blog", "kernels", "buckets", "api")
_CREDENTIALS = "it has a user name or a password; a token goes into HF_TOKEN"
_NO_PORT = r"[^/@]*:(?!\d+(?:/|$))"
"""A colon before the path that is not followed by a port."""
_FILE_PAGES = ("blob", "resolve", "raw", "blame", "edit")
_FOLDER_PAGES = ("tree", "commit", "commits")


class BadName(UsageError):
    """The text is not a name on the Hub. Neither message nor fields contain possible secrets."""

    def __init__(self, text: str, why: str) -> None:
        self.text, self.why = _shown(text), _without_token(why)
        super().__init__(
            f"{self.text!r} is not the name of a model: {self.why}",
            hint="write ORG/MODEL, ORG/MODEL@REV or ORG/MODEL:QUANT",
        )


def unknown_tag_error(tag: str, revisions: list[str]) -> SourceError:
    """Return the error for a tag that is neither a revision of the repository nor a quantization."""
    more = f" and {len(revisions) - _SHOWN} more" if len(revisions) > _SHOWN else ""
    known = ", ".join(name.upper() for name in (*quantization_types.FLOAT, *quantization_types.QUANTIZED))
    return SourceError(
        f"{tag!r} is neither a revision of that repository nor a quantization; it has the revisions "
        f"{', '.join(revisions[:_SHOWN])}{more}",
        hint=f"quantizations are {known}, and others that files are called after, such as UD-Q4_K_XL",
    )


class HubName(Value):
    """Parsed name; ``str`` returns a text that parses to the same value."""

    repo: str
    revision: str | None = None
    tag: str | None = None
    """The text after the colon: a revision or a quantization."""
    file: str | None = None
    """A file of the repository, or a folder (with a trailing slash)."""

    def __str__(self) -> str:
        if self.file is not None and ("/" not in self.repo or (self.revision is not None and ":" in self.file)):
            page = "tree" if self.file.endswith("/") else "resolve"
            revision, file = _quoted(self.revision or "main"), _quoted(self.file, "/")
            return f"https://huggingface.co/{self.repo}/{page}/{revision}/{file}"
        if self.file is not None:
            revision = "" if self.revision is None else f"@{_quoted(self.revision)}"
            return f"hf://{self.repo}{revision}/{self.file}"
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{self.repo}{revision}" + ("" if self.tag is None else f":{self.tag}")


def looks_like_hub_name(text: str) -> bool:
    """Return whether a text that is not a path can be a name on the Hub: it has an organisation, or is a URL."""
    if "://" in text or any(host in text.lower() for host in _HOSTS):
        return True
    return re.match(r"[^/\s@:]+/[^/\s@:]+(?=$|[@:])", text) is not None


def is_other_address(text: str, endpoint: str | None) -> bool:
    """Return whether a text is the URL of something else than the Hub, such as a server, without credentials."""
    if re.match(r"(?i)unix://", text):
        return True
    if not re.match(r"(?i)https?://", text):
        return False
    try:
        _without_host(text, endpoint)
    except BadName:
        return "@" not in text and not re.match(_NO_PORT, text.partition("://")[2])
    return False


def parse(text: str, *, endpoint: str | None = None) -> HubName:
    """Parse a name; raises ``BadName``. ``endpoint`` is the Hub's URL if it is not the default.

    A repository may have no organisation (``gpt2``). Two parts are always organisation and model, so a file of such a
    repository can be named by its ``https://`` URL only.
    """
    if len(text) > _LONGEST:
        raise BadName(text, f"it has {len(text)} characters")
    is_path = text.lower().startswith("hf://")  # in which a file's name stands as it is
    for pattern, what in ((file_names.UNSEEN, "control characters"), (r"\s", "spaces"), (r"\\", "backslashes")):
        if re.search(pattern, text) and not (is_path and what == "spaces"):
            raise BadName(text, f"it has {what}")
    if re.match(r"(?i)https?://", text):
        name = _parse_address(text, _without_host(text, endpoint))
    elif _is_before_host(text):
        raise BadName(text, _CREDENTIALS)
    elif is_path:
        name = _parse_path(text, text[len("hf://") :])
    elif "://" in text:
        raise BadName(text, f"{text.partition('://')[0]}:// is not understood")
    elif _host_of(text) in _HOSTS and "/" in text:
        name = _parse_address(text, text.partition("/")[2])
    else:
        name = _parse_plain(text, text)
    _check(text, name)
    return name


def classify_tag(
    tag: str, *, branches: Collection[str], tags: Collection[str], commits: Collection[str]
) -> Literal["revision", "quantization"]:
    """Return what the text after a colon is: an existing revision, else a quantization; raises ``SourceError``."""
    if tag in branches or tag in tags or tag in commits:
        return "revision"
    if file_names.parse_quantization(tag) is not None:
        return "quantization"
    raise unknown_tag_error(tag, [*branches, *tags])


def _is_before_host(text: str) -> bool:
    """Return whether the Hub's host follows an @; the text before it may be a secret."""
    return "@" in text and _host_of(text.rpartition("@")[2]).partition(":")[0] in _HOSTS


def _host_of(rest: str) -> str:
    return rest.partition("/")[0].lower().removeprefix("www.")


def _without_host(text: str, endpoint: str | None) -> str:
    """Return the path of a URL of the Hub."""
    rest = text.partition("://")[2]
    own = (endpoint or "").partition("://")[2].strip("/")
    if own and f"{rest}/".lower().startswith(f"{own}/".lower()):
        return rest[len(own) :]
    if _host_of(rest).removesuffix(":443") in _HOSTS:
        return rest.partition("/")[2]
    if "@" in rest or re.match(_NO_PORT, rest):
        raise BadName(text, _CREDENTIALS)
    raise BadName(text, f"{_host_of(rest)} is not the Hub (HF_ENDPOINT names another one)")


def _parse_address(text: str, rest: str) -> HubName:
    """Parse the path of a URL as a browser shows it."""
    rest = rest.partition("?")[0].partition("#")[0].strip("/")
    if rest in ("", "models"):
        raise BadName(text, "it names no repository")
    parts = rest.split("/")
    for at in (1, 2):
        if len(parts) > at and parts[at] in (*_FILE_PAGES, *_FOLDER_PAGES):
            return _parse_page(text, "/".join(parts[:at]), parts[at], parts[at + 1 :])
    if len(parts) > 2 and parts[2] in ("discussions", "settings"):  # noqa: PLR2004 - after organisation and model
        raise BadName(text, "it is a page about a repository")
    return _parse_path(text, rest)


def _parse_page(text: str, repo: str, page: str, rest: list[str]) -> HubName:
    if not rest:
        raise BadName(text, f"a revision is missing after /{page}/")
    revision, below = _split_revision(rest[0], rest[1:])
    below = _unquoted("/".join(below)).split("/") if below else []
    if page in _FOLDER_PAGES:
        return HubName(repo, revision, None, "/".join(below) + "/" if page == "tree" and below else None)
    if not below:
        raise BadName(text, f"a file is missing after /{page}/{revision}")
    return HubName(repo, revision, None, "/".join(below))


def _parse_path(text: str, rest: str) -> HubName:
    """Parse ``org/model[@REV][/FILE]`` by the rules of huggingface_hub; a colon may follow the repository."""
    folder = "/" if rest.endswith("/") else ""
    rest = rest.removeprefix("models/").rstrip("/")
    parts = rest.split("/")
    if len(parts) <= 2 or re.search(r"@[^:]*:[^:/]*$", rest):  # noqa: PLR2004 - no file
        name = _parse_plain(text, rest)
        return name.replace(revision=name.revision and _unquoted(name.revision))
    model, _, revision = parts[1].partition("@")
    below = parts[2:]
    if revision:
        revision, below = _split_revision(revision, below)
    return HubName(f"{parts[0]}/{model}", revision or None, None, "/".join(below) + folder if below else None)


def _split_revision(first: str, below: list[str]) -> tuple[str, list[str]]:
    """Return the revision at the start of a path, and the rest; refs/pr/1 may have unquoted slashes."""
    if first == "refs" and len(below) >= 2:  # noqa: PLR2004
        return "/".join([first, *below[:2]]), below[2:]
    return _unquoted(first), below


def _parse_plain(text: str, rest: str) -> HubName:
    repo, at, revision = rest.partition("@")
    named, colon, tag = (revision if at else repo).rpartition(":")
    if colon:
        repo, revision = (repo, named) if at else (named, "")
    else:
        tag = ""
    if (at and not revision) or (colon and not tag):
        raise BadName(text, "something is missing after @ or :")
    if ":" in repo or ":" in revision:
        raise BadName(text, "it has more than one colon, or one before the revision")
    if "@" in revision:
        raise BadName(text, "it has more than one @")
    return HubName(repo, revision or None, tag or None)


def _check(text: str, name: HubName) -> None:
    _check_repository(text, name.repo)
    for what in (name.revision, name.tag):
        if what is not None and (
            len(what) > _LONGEST_REVISION
            or any(piece in ("", ".", "..") for piece in what.split("/"))
            or re.search(rf"^-|[\x00-\x20\x7f:?*\\^~\[@]|\.\.|{file_names.UNSEEN}", what)
        ):
            raise BadName(text, "what stands after @ or : is no revision")
    if name.file is not None and (why := file_names.name_problem(name.file.removesuffix("/"))):
        raise BadName(text, f"of the file, {why}")


def _check_repository(text: str, repo: str) -> None:
    parts = repo.split("/")
    if text.startswith("/"):
        raise BadName(text, "it is an absolute path")
    if ".." in parts or "." in parts:
        raise BadName(text, "it is a path, and . and .. are no part of a name")
    if parts[0].lower() in (*_KINDS, *_HOSTS) and len(parts) > 1:
        kind = parts[0].lower()
        raise BadName(text, f"it is one of the Hub's {kind}" if kind in _KINDS else "it names no repository")
    if not all(parts) or len(parts) > 2:  # noqa: PLR2004 - organisation and model
        raise BadName(text, "an organisation and a model are expected, with one slash between them")
    if len(repo) > _LONGEST_REPOSITORY:
        raise BadName(text, f"the repository has {len(repo)} characters, and no more than 96 are possible")
    for what, part in zip(("organisation", "model")[-len(parts) :], parts, strict=True):
        _check_part(text, what, part)
    if "--" in repo or ".." in repo:
        raise BadName(text, "-- and .. are not allowed")


def _check_part(text: str, what: str, part: str) -> None:
    """Check a part of the repository's name by the Hub's rules. The error does not repeat it: it may be a secret."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", part):
        raise BadName(text, f"the {what} has characters other than A-Z, a-z, 0-9, dot, dash and underscore")
    if part.startswith((".", "-")) or part.endswith((".", "-", ".git")):
        raise BadName(text, f"the {what} begins or ends as no name does")


def _unquoted(text: str) -> str:
    from urllib.parse import unquote  # noqa: PLC0415 - for addresses only

    return unquote(text)


def _quoted(text: str, safe: str = "") -> str:
    from urllib.parse import quote  # noqa: PLC0415 - for addresses only

    return quote(text, safe=safe)


def _shown(text: str) -> str:
    """Return a short form of a text without query, passwords and tokens."""
    text = text.partition("?")[0]
    scheme, separator, rest = text.partition("://")
    if not separator:
        before, _, after = text.rpartition("@")
        text = f"…@{after}" if ":" in before or _is_before_host(text) else text
    elif scheme.lower() != "hf" and _host_of(rest) not in _HOSTS and ("@" in rest or re.match(_NO_PORT, rest)):
        text = f"{scheme}://…" + (f"@{rest.rpartition('@')[2]}" if "@" in rest else "")
    text = _without_token(text)
    return text if len(text) <= 80 else f"{text[:77]}…"  # noqa: PLR2004


def _without_token(text: str) -> str:
    return re.sub(r"\bhf_\w{8,}|hf_\w{16,}", "hf_…", text)


def bare_source(source: str) -> str:
    """Return a source without revision and quantization, in lower case if it is a name on the Hub."""
    try:
        return parse(source).repo.lower()
    except LlamaRunnerError:  # a name that was imported
        return source
