"""What ``Runner.running``, ``stop``, ``restart`` and ``forget`` return for each server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any


class ServerEntry(dict[str, Any]):
    """One server of a root: a mapping as ``ps --json`` prints it, whose members are attributes too.

    ``each.pid`` is ``each["pid"]``. What is not known is None.
    """

    if TYPE_CHECKING:
        alias: str
        """The name that the API gives the model."""
        url: str
        state: str
        """``loading``, ``ready``, ``failed`` or ``stopped``."""
        pid: int | None
        build: str | None
        model: str | None
        """The file."""
        log: str
        """Below the root."""
        context: int | None
        """Tokens."""
        detached: bool
        age_s: float | None
        rss: int | None
        """Bytes of memory."""
        vram: dict[str, int] | None
        """Bytes of memory of each GPU."""
        slots: int | None
        slots_busy: int | None
        tokens_per_second: float | None
        failure: str | None
        """Why it is not running, of a server that failed."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of each member's type
        """Return a member; ``AttributeError`` where there is none, as of any object."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no member {name!r}", name=name, obj=self) from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *map(str, self)})

    def __repr__(self) -> str:
        shown = [f"{name}={self.get(name)!r}" for name in ("alias", "url", "state", "pid")]
        return f"{type(self).__name__}({', '.join(shown)})"
