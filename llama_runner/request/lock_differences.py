"""Compares an entry of the lock file with the entry of a request; ``lock_entry`` gives both the same form.

What is not known yet is ``UNKNOWN`` and differs from nothing, so the same comparison is made before any work and after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import is_digest, scheme_of
from llama_runner.core.errors import SourceError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from llama_runner.core.digest import Scheme
    from llama_runner.request.lock_file import LockedModel

    InScheme = Callable[[str, Scheme], Any]

_SHOWN = 12
_LONGEST = 100
_COMPARED = ("source", "adapters", "steps", "build")
"""Members of an entry that are compared; ``options`` and ``tools`` are information only."""
_NOT_COMPARED = {"project_include"}
"""Says how the files of a build are put together: a native build is pinned by its source, any other by its digest."""
ABSENT = "nothing"


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Any = _Unknown()
"""Stands for a digest that is not known before something is made."""


class Difference(Value):
    """A field of a lock file that something here differs from."""

    field: str
    """Its path in the entry: ``source.commit``, ``steps.quantize.params.type``."""
    locked: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.field}: locked {_brief(self.locked)}, here {_brief(self.here)}"

    def to_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return dict(self.__dict__)


def _brief(value: object) -> str:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    text = value if isinstance(value, str) else ABSENT if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


class LockDiffers(SourceError):
    """What is asked for, or was made, differs from the lock file. ``differences`` has the fields."""

    def __init__(self, name: str, differences: Iterable[Difference]) -> None:
        self.name, self.differences = name, tuple(differences)
        lines = [f"\n  {each}" for each in self.differences[:_SHOWN]]
        if len(self.differences) > _SHOWN:
            lines.append(f"\n  and {len(self.differences) - _SHOWN} more")
        super().__init__(
            f"{name} differs from the lock file{''.join(lines)}",
            hint=_hint(name, [each.field for each in self.differences]),
        )


def _hint(name: str, fields: list[str]) -> str:
    if all(field.startswith("build") for field in fields):
        return (
            f"use the locked programs (--binaries, --backend), or lock those of here: llama-runner lock --update {name}"
        )
    return f"ask for what is locked, or move the lock: llama-runner lock --update {name}"


def check(locked: LockedModel, here: Mapping[str, Any], in_scheme: InScheme | None = None) -> None:
    """Raise ``LockDiffers`` if what is known of a request differs from its entry."""
    if found := list(differences(locked.entry, here, in_scheme)):
        raise LockDiffers(locked.name, found)


def differences(
    locked: Mapping[str, Any], here: Mapping[str, Any], in_scheme: InScheme | None = None
) -> Iterator[Difference]:
    """Yield the fields in which an entry and the present form differ. Builds of other platforms are left out.

    ``in_scheme`` returns a digest of here in the scheme of the lock file, or ``UNKNOWN``. None: they are unknown.
    """
    for member in _COMPARED:
        mine, theirs = here.get(member, {}), locked.get(member, {})
        if member == "build" and mine is not UNKNOWN:
            if missing := [platform for platform in mine if platform not in theirs]:
                yield Difference("build", f"for {', '.join(sorted(theirs)) or ABSENT}", f"for {missing[0]}")
                continue
            theirs = {platform: theirs[platform] for platform in mine}
        yield from _differences(member, theirs, mine, in_scheme or (lambda _digest, _scheme: UNKNOWN))


def _differences(where: str, locked: Any, here: Any, in_scheme: InScheme) -> Iterator[Difference]:  # noqa: ANN401 - JSON
    if is_digest(locked) and is_digest(here) and scheme_of(locked) != scheme_of(here):
        here = in_scheme(here, scheme_of(locked))
    if here is UNKNOWN or locked is UNKNOWN or locked == here:
        return
    if isinstance(locked, dict) and isinstance(here, dict):
        if locked.get("step") != here.get("step"):  # programs of another kind: no other field can be compared
            yield Difference(f"{where}.step", locked.get("step"), here.get("step"))
            return
        for name in sorted({*locked, *here} - _NOT_COMPARED):
            yield from _differences(f"{where}.{name}", locked.get(name), here.get(name), in_scheme)
    elif isinstance(locked, list) and isinstance(here, list) and sorted(map(str, locked)) != sorted(map(str, here)):
        gone, new = [each for each in locked if each not in here], [each for each in here if each not in locked]
        yield Difference(where, gone or None, new or None)
    else:
        yield Difference(where, locked, _known(here))


def _known(value: Any) -> Any:  # noqa: ANN401 - as above
    """Return a value without the parts that are not known, for a message."""
    if isinstance(value, dict):
        return {name: _known(item) for name, item in value.items() if item is not UNKNOWN}
    return value
