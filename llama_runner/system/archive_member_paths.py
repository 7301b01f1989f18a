"""Paths of the members of an untrusted archive or manifest: none may leave its directory, on any system."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from llama_runner.core.errors import StepError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_FILE_NAME, MAX_PATH = 255, 1024
"""Maximum bytes of a file name and of a path on common file systems."""


class BadArchive(StepError):
    """The archive cannot be extracted, or is refused."""

    resolution: ClassVar[str] = "nothing was kept"

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"unpack: {why}", hint=self.resolution)


def unsafe_member_error(member: str, why: str) -> BadArchive:
    """Return the error for a member that is unsafe to extract."""
    return BadArchive(f"member {member!r} {why}")


class Member(Value):
    """One member of an archive. ``target`` is that of a ``link``, or the earlier member whose bytes a ``copy`` has."""

    name: str
    kind: Literal["file", "directory", "link", "copy"]
    size: int = 0
    executable: bool = False
    target: str = ""


def check_members(listed: Iterable[Member]) -> None:
    """Raise ``BadArchive`` if a list of members is unsafe to write below one directory, as ``extract`` does."""
    names = MemberNames()
    for member in listed:
        parts = names.add(member, member.name)
        if member.kind == "link":
            checked_target(member, parts)


class MemberNames:
    """The paths of members below a directory; refuses a second member of the same name."""

    def __init__(self) -> None:
        self._leaves: set[tuple[str, ...]] = set()
        """Files and links by their case-folded path."""
        self._directories: set[tuple[str, ...]] = set()

    def add(self, member: Member, name: str) -> tuple[str, ...]:
        """Return the parts of a member's path; none for the directory itself. Raises ``BadArchive``."""
        parts = path_parts(name, member.name)
        if not parts:
            if member.kind != "directory":
                raise unsafe_member_error(member.name, "has no name")
            return ()
        key = case_folded(parts)
        above = [key[:length] for length in range(1, len(key))]
        if member.kind == "directory":
            above.append(key)
        if key in self._leaves or (member.kind != "directory" and key in self._directories):
            raise unsafe_member_error(member.name, "is there twice")
        if any(directory in self._leaves for directory in above):
            raise unsafe_member_error(member.name, "lies below a file or a link")
        self._directories.update(above)
        if member.kind != "directory":
            self._leaves.add(key)
        return parts


def path_parts(name: str, member: str) -> tuple[str, ...]:
    """Return the parts of a name. Raises ``BadArchive`` if it would leave the directory on any system."""
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ":" in name or ".." in parts:
        raise unsafe_member_error(member, "would leave the directory")
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise unsafe_member_error(member, "has a name that is no text") from None
    if not name.isprintable():
        raise unsafe_member_error(member, "has a name that cannot be printed")
    if len(encoded) > MAX_PATH or any(len(part.encode()) > _MAX_FILE_NAME for part in parts):
        raise unsafe_member_error(member, "has a name that is too long")
    return tuple(part for part in parts if part not in ("", "."))


def case_folded(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return a path so that paths are equal if macOS or Windows take them for the same one."""
    import unicodedata  # noqa: PLC0415 - not on the warm path

    return tuple(unicodedata.normalize("NFC", part.casefold()) for part in parts)


def checked_target(member: Member, parts: tuple[str, ...]) -> str:
    """Return a link's target. Raises ``BadArchive`` if it would leave the directory.

    ``..`` is allowed only at the beginning: after a component that may be a link itself it would lead to the parent of
    that link's target.
    """
    steps = [step for step in member.target.split("/") if step != "."]
    ups = next((index for index, step in enumerate(steps) if step != ".."), len(steps))
    is_inside = (
        member.target
        and not member.target.startswith("/")
        and not any(letter in member.target for letter in "\\:\0")
        and ".." not in steps[ups:]
        and ups < len(parts)
    )
    if not is_inside:
        raise unsafe_member_error(member.name, f"is a link to {member.target!r}, which would leave the directory")
    return member.target
