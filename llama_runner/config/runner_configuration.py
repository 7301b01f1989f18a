"""``ConfigFile``: the configuration file of a ``Runner`` as a program shows and changes it."""

from __future__ import annotations

import difflib
import hashlib
from typing import TYPE_CHECKING, Any

from llama_runner.config.config import Config
from llama_runner.config.differences import file_differences
from llama_runner.config.edit import KeyChange, change_keys, get_value, replace_text
from llama_runner.config.effective_options import effective
from llama_runner.config.errors import ConfigError
from llama_runner.config.read_config_file import text_of
from llama_runner.core.errors import StoreError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from llama_runner.config.errors import Mistake

__all__ = ["ConfigChange", "ConfigFile", "ConfigText", "KeyChange"]


def changed_meanwhile_error(path: Path) -> StoreError:
    """Return the error for a change that was made for another text of the file."""
    return StoreError(f"{path} was changed since it was read", hint="read it again, and look at the difference")


def revision_of(text: str) -> str:
    """Return what identifies a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class ConfigText(Value):
    """The text of a configuration file and the mistakes in it."""

    path: Path
    text: str
    models: tuple[str, ...]
    """The declared names; none where there are mistakes."""
    mistakes: tuple[Mistake, ...]

    @property
    def revision(self) -> str:
        """What identifies the text."""
        return revision_of(self.text)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "file": str(self.path),
            "text": self.text,
            "revision": self.revision,
            "models": list(self.models),
            "mistakes": [each.to_json() for each in self.mistakes],
        }


class ConfigChange(Value):
    """A change of the configuration: what it does to each file and to the models."""

    diff: str
    """Of the files, as a unified diff; empty where nothing changes."""
    differences: tuple[dict[str, Any], ...]
    """What it changes of models, gateway and store, all layers together."""
    applied: bool
    revision: str
    """Of the configuration file, before the change is applied or after."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**self.__dict__, "differences": list(self.differences)}


class ConfigFile:
    """One configuration file. Each call reads it anew. ``profile`` returns what ``tune`` saved under a name."""

    def __init__(self, path: Path, profile: Callable[[str], Mapping[str, str]] | None = None) -> None:
        self.path, self._profile = path, profile

    def read(self) -> ConfigText:
        """Return the text and its mistakes. Raises ``UsageError`` if there is no such file."""
        text = text_of(self.path, ())
        try:
            config = Config.load(self.path)
        except ConfigError as error:
            return ConfigText(self.path, text, (), error.mistakes)
        return ConfigText(self.path, text, tuple(config.models), ())

    def get(self, key: str) -> Any:  # noqa: ANN401 - a TOML value
        """Return the value of a key as the file has it; ``UsageError`` if there is none."""
        return get_value(self.path, key)

    def effective(self, name: str) -> list[dict[str, Any]]:
        """Return what a declared model is run with, key by key, and which layer and line of the file says so."""
        config = Config.load(self.path)
        return [each.to_json() for each in effective(config, config.resolved(name, self._profile), {})]

    def change(self, changes: Iterable[KeyChange], *, apply: bool = False, revision: str | None = None) -> ConfigChange:
        """Set and remove keys; without ``apply`` only say what that does.

        ``revision`` is that of the text that the changes are for: ``StoreError`` if the file has another one now.
        """
        text, before = self._text(revision), self._config()
        changed = change_keys(self.path, changes, apply=apply, text=text)
        texts = {each.path: (each.before, each.after) for each in changed}
        return self._change(before, texts, apply=apply)

    def replace(self, text: str, *, apply: bool = False, revision: str | None = None) -> ConfigChange:
        """Replace the text of the file; without ``apply`` only say what that does. Raises as ``change``."""
        old, before = self._text(revision), self._config()
        Config.load(self.path, text=text)
        if apply:
            replace_text(self.path, text, before=old)
        return self._change(before, {self.path: (old, text)}, apply=apply)

    def _text(self, revision: str | None) -> str:
        """Return the text of the file; it is compared with this one again, under the lock, before it is replaced."""
        text = text_of(self.path, ())
        if revision is not None and revision != revision_of(text):
            raise changed_meanwhile_error(self.path)
        return text

    def _config(self) -> Config | None:
        try:
            return Config.load(self.path)
        except ConfigError:
            return None

    def _change(self, before: Config | None, texts: Mapping[Path, tuple[str, str]], *, apply: bool) -> ConfigChange:
        after = Config.load(self.path, texts={path: new for path, (_, new) in texts.items()})
        told = [] if before is None else [each.to_json() for each in file_differences(before, after)]
        lines = [line for path, (old, new) in texts.items() for line in _diff(path, old, new)]
        return ConfigChange("".join(lines), tuple(told), apply, revision_of(text_of(self.path, ())))


def _diff(path: Path, old: str, new: str) -> Iterable[str]:
    return difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), path.name, path.name)
