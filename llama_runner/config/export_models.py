"""Models to export to another program: what each format needs of them, and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.config.server_flags import ServerFlags, server_flags
from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llama_runner.config.config import Config
    from llama_runner.config.layers import Resolved
    from llama_runner.serving.llama_server.launch_spec import ServerSpec

_NOT_OURS = ("sessions", "max_ctx_size", "fallback")


class ExportedItem(Value):
    """Something that is exported in another way than it is declared, or not at all."""

    model: str
    key: str
    """The key of ours."""
    note: str

    def to_json(self) -> dict[str, str]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.fields}


class Exported(Value):
    """A file for another program."""

    format: str
    text: str
    models: tuple[str, ...]
    """The models that are in it."""
    items: tuple[ExportedItem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        items = [item.to_json() for item in self.items]
        return {"format": self.format, "models": list(self.models), "items": items, "text": self.text}


class Launch(Value):
    """A model that is prepared: what its server is started with."""

    resolved: Resolved
    program: str
    options: tuple[tuple[str, str | None], ...]
    """Options of llama-server in their long spelling with their values, in their order; the model is the first."""
    names: tuple[str, ...]


class Exports:
    """The models to export, with the report."""

    def __init__(self, config: Config, specs: Mapping[str, ServerSpec | str], flags: ServerFlags | None = None) -> None:
        """``specs``: what ``Runner.plan`` says of each model, or why it cannot be exported."""
        self.config = config
        self.items: list[ExportedItem] = []
        self._flags = flags or server_flags()
        self.launches: dict[str, Launch] = {}
        for name, spec in specs.items():
            if isinstance(spec, str):
                self.note(name, "", f"left out: {spec}")
            else:
                self.launches[name] = self._launch(name, spec)

    def note(self, model: str, key: str, text: str) -> None:
        """Add a line to the report."""
        self.items.append(ExportedItem(model, key, text))

    def finished(self, format_name: str, text: str, models: Iterable[str]) -> Exported:
        """Return the export; raises ``UsageError`` if it has no model."""
        found = tuple(models)
        if not found:
            first = next(iter(self.items), None)
            raise UsageError(
                "no model can be exported" + (f": {first.model}: {first.note}" if first else ""),
                hint="llama-runner prepare NAME makes what a model needs",
            )
        return Exported(format_name, text, found, tuple(self.items))

    def _launch(self, name: str, spec: ServerSpec) -> Launch:
        resolved = self.config.resolved(name)
        words = ["--model", str(spec.model)]
        words += ["--mmproj", str(spec.projector)] if spec.projector and not _names_projector(spec.extra) else []
        words += spec.adapter_words
        words += [] if spec.ctx_size is None else ["--ctx-size", str(spec.ctx_size)]
        words += ["--threads", str(spec.threads)] if "threads" in resolved.values else []
        words += [] if spec.gpu_layers is None else ["--gpu-layers", str(spec.gpu_layers)]
        words += spec.extra
        if resolved.values.get("projector") is False:
            words.append("--no-mmproj")
        for key in ("api_key", "api_key_file", "tls_cert", "tls_key", "insecure"):
            if resolved.values.get(key):
                self.note(name, key, "not exported: the other program listens to clients")
        for key in _NOT_OURS:
            if resolved.get(key):
                self.note(name, key, "not exported: there is no counterpart")
        if resolved.get("system"):
            self.note(name, "system", "not exported: llama-server takes the system prompt from requests")
        for adapter in resolved.model.adapters:
            self.note(name, f"adapters.{adapter}", "not exported: adapters are no models there")
        return Launch(resolved, str(spec.binary), tuple(self._pairs(name, words)), resolved.names[1:])

    def _pairs(self, name: str, words: list[str]) -> Iterable[tuple[str, str | None]]:
        left = list(words)
        while left:
            word = left.pop(0)
            found = self._flags.find(word)
            count = self._flags.takes(word)
            if found is None or count is None or count > 1:
                self.note(name, word, "not exported: the number of its values is not known")
                while left and not left[0].startswith("-"):
                    left.pop(0)
                continue
            flag, _ = found
            off = word in flag.negations
            long = [each for each in flag.names if each.startswith("--") and (each in flag.negations) == off]
            yield long[0], left.pop(0) if count else None

    def writable(
        self, name: str, launch: Launch, is_writable: Callable[[str], str | None]
    ) -> list[tuple[str, str | None]] | None:
        """Return the options whose values the format can hold; None if the model's own is not among them.

        ``is_writable`` returns why a value cannot be written, or None.
        """
        kept: list[tuple[str, str | None]] = []
        for option, value in launch.options:
            why = None if value is None else is_writable(value)
            if why is None:
                kept.append((option, value))
            elif option == "--model":
                self.note(name, "source", f"left out: {printable(value or '')} {why}")
                return None
            else:
                self.note(name, option.lstrip("-"), f"not exported: {printable(value or '', limit=60)} {why}")
        return kept


def _names_projector(words: tuple[str, ...]) -> bool:
    return bool({"--mmproj", "-mm", "--no-mmproj"} & set(words))
