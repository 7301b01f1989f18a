"""Changes a configuration file: comments and order stay, the new text is checked before it replaces the old one.

tomlkit sets values. Statements are removed and renamed as lines of text, as tomlkit counts the comment above a table to
the table before it. Every result is compared with the value that it should have.
"""

from __future__ import annotations

import copy
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.config.config import Config
from llama_runner.config.errors import ConfigError, dotted
from llama_runner.config.key_path import Keys, read_key, read_typed
from llama_runner.config.read_config_file import can_be_name, text_of
from llama_runner.config.toml import TOMLDecodeError, loads
from llama_runner.config.toml_statements import renamed, without
from llama_runner.config.write_config_files import locked, write, write_all
from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path


class Change(Value):
    """A change of a configuration file."""

    path: Path
    """The file that was written: the configuration, or a file that it includes."""
    before: str
    after: str

    @property
    def is_none(self) -> bool:
        """Whether nothing changed."""
        return self.before == self.after


def get_value(path: Path, key: str) -> Any:  # noqa: ANN401 - a TOML value
    """Return the value of a key as the file has it; a table as a dictionary. Raises ``UsageError`` if there is none."""
    config = _loaded(path)
    keys = read_key(key, _names(config))
    for text in [text_of(path, ())] if config is None else config.texts.values():
        with suppress(KeyError):
            return _at(_parsed(path, text), keys)
    raise UsageError(f"{path} does not set {dotted(keys)}")


def set_value(path: Path, key: str, value: Any) -> Change:  # noqa: ANN401 - a TOML value
    """Set a key to a value of TOML. Raises ``ConfigError`` for a value that the key does not take."""
    keys = read_key(key, _names(_loaded(path)))

    return _change(path, keys, lambda text: _with_value(path, text, keys, value))


def _with_value(path: Path, text: str, keys: Keys, value: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401 - as above
    """Return a text in which a key has a value, and the tables that it should have."""
    expected = _parsed(path, text)
    table = expected
    for each in keys[:-1]:
        table = table.setdefault(each, {})
        if not isinstance(table, dict):
            raise UsageError(f"{dotted(keys)}: {each} is not a table")
    table[keys[-1]] = value
    return _set(text, keys, value), expected


def set_typed(path: Path, key: str, text: str) -> Change:
    """Set a key to the value that a text in a shell stands for."""
    return set_value(path, key, read_typed(read_key(key, _names(_loaded(path))), text))


def unset(path: Path, key: str) -> Change:
    """Remove a key or a table. Raises ``UsageError`` if the file does not have it."""
    keys = read_key(key, _names(_loaded(path)))
    return _change(path, keys, lambda text: _without_key(path, text, keys))


def _without_key(path: Path, text: str, keys: Keys) -> tuple[str, dict[str, Any]]:
    """Return a text without a key, and the tables that it should have."""
    expected = _parsed(path, text)
    try:
        del _at(expected, keys[:-1])[keys[-1]]
    except KeyError:
        raise UsageError(f"{path} does not set {dotted(keys)}") from None
    shorter = without(text, keys)
    return (shorter if _is_same(shorter, expected) else _deleted(text, keys)), expected


class KeyChange(Value):
    """A change of one key: its new value, or with ``is_unset`` none."""

    key: str
    value: Any = None
    is_unset: bool = False


def change_keys(
    path: Path, changes: Iterable[KeyChange], *, apply: bool = True, text: str | None = None
) -> list[Change]:
    """Change several keys, in this order; return the change of each file. Without ``apply`` nothing is written.

    Nothing is written if one of them is refused. ``text`` is that of the file that the changes are for. Raises as
    ``set_value`` and ``unset``, and ``StoreError`` if a file was changed meanwhile.
    """
    before: dict[Path, str] = {} if text is None else {path: text}
    after = dict(before)
    for each in changes:
        keys = read_key(each.key, _names(config := _loaded(path, after)))
        file = _file_of(config, path, keys)
        if file not in after:
            before[file] = after[file] = text_of(file, ())
        made = (
            _without_key(path, after[file], keys) if each.is_unset else _with_value(path, after[file], keys, each.value)
        )
        after[file] = _compared(file, keys, *made)
    _check(path, before, after)
    if apply:
        write_all(before, after)
    return [Change(file, before[file], after[file]) for file in after]


def _compared(file: Path, keys: Keys, after: str, expected: dict[str, Any]) -> str:
    """Return a changed text. Raises ``UsageError`` if it does not have the value that it should have."""
    if not _is_same(after, expected):
        raise UsageError(f"{dotted(keys)} is written in a way that cannot be changed here", hint=f"edit {file}")
    return after


def remove(path: Path, name: str) -> Change:
    """Remove a model. Raises ``UsageError`` with the nearest name if there is none."""
    if (config := _loaded(path)) is not None:
        name = config.model(name).name
    return unset(path, dotted(("models", name)))


def add_model(path: Path, name: str, table: dict[str, Any]) -> Change:
    """Declare a model. Raises ``UsageError`` if the file declares the name already."""
    keys = ("models", name)

    def change(text: str) -> tuple[str, dict[str, Any]]:
        expected = _parsed(path, text)
        if name in expected.get("models", {}):
            raise UsageError(f"{path} declares {name!r} already", hint="give it another name with --name")
        after = text if text.endswith("\n") or not text else f"{text}\n"
        return after + ("\n" if after else "") + model_text(name, table), {
            **expected,
            "models": {**expected.get("models", {}), name: table},
        }

    return _change(path, keys, change)


def model_text(name: str, table: dict[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """Return a model as TOML, with a comment above some of its keys."""
    import tomlkit  # noqa: PLC0415 - only for changes

    lines = [f"[{dotted(('models', name))}]"]
    for key, value in table.items():
        if comments and key in comments:
            lines.append(f"# {printable(comments[key])}")
        lines.append(tomlkit.dumps({key: value}).strip() if not isinstance(value, dict) else _inline(key, value))
    return "\n".join(lines) + "\n"


def _inline(key: str, value: dict[str, Any]) -> str:
    import tomlkit  # noqa: PLC0415 - as above

    table = tomlkit.inline_table()
    table.update(value)
    return tomlkit.dumps({key: table}).strip()


def rename(path: Path, old: str, new: str) -> Change:
    """Give a model another name, also where ``fallback`` names it."""
    if (config := _loaded(path)) is not None:
        old = config.model(old).name
    if not can_be_name(new):
        raise UsageError(f"{new!r} cannot be a name", hint="names are printable text without commas")
    keys = ("models", old)

    def change(text: str) -> tuple[str, dict[str, Any]]:
        whole = _parsed(path, text)
        models = whole.get("models", {})
        if new in models and new != old:
            raise UsageError(f"{path} declares {new!r} already")
        if old not in models:
            raise UsageError(f"{path} does not declare {old!r}")
        after = renamed(text, keys, new)
        whole["models"] = {(new if name == old else name): each for name, each in models.items()}
        for name, each in whole["models"].items():
            fallback = each.get("fallback") if isinstance(each, dict) else None
            if isinstance(fallback, list) and old in fallback:
                each["fallback"] = [new if other == old else other for other in fallback]
                after = _set(after, ("models", name, "fallback"), each["fallback"])
        return after, whole

    return _change(path, keys, change)


def replace_text(path: Path, text: str, *, before: str, insist: bool = False) -> Change:
    """Replace the text ``before`` of a file by another, with ``insist`` also by one with mistakes.

    Raises ``ConfigError``, and ``StoreError`` if the file has another text by now.
    """
    if not insist:
        Config.load(path, text=text)
    with locked(path) as target:
        write(target, before, text)
    return Change(path, before, text)


def write_new(path: Path, text: str, *, force: bool = False) -> None:
    """Write a configuration file. Raises ``UsageError`` if it exists, unless ``force``, and ``ConfigError``."""
    Config.load(path, text=text)
    with locked(path) as target:
        if os.path.lexists(target) and not force:
            raise UsageError(f"{path} exists", hint="--add puts a model into it, --force replaces it")
        write(target, None, text)


def _change(path: Path, keys: Keys, change: Callable[[str], tuple[str, dict[str, Any]]]) -> Change:
    """Change the file that a key is in, or would be in."""
    file = _file_of(_loaded(path), path, keys)
    with locked(file) as target:
        before = text_of(file, ())
        after = _compared(file, keys, *change(before))
        if after != before:
            _check(path, {file: before}, {file: after})
            write(target, before, after)
    return Change(file, before, after)


def _check(path: Path, before: Mapping[Path, str], after: Mapping[Path, str]) -> None:
    """Raise ``ConfigError`` with the mistakes that a change adds; those that were there stay possible."""
    old = {(each.key, each.text) for each in _mistakes(path, before)}
    if new := [each for each in _mistakes(path, after) if (each.key, each.text) not in old]:
        raise ConfigError(new)


def _mistakes(path: Path, texts: Mapping[Path, str]) -> tuple[Any, ...]:
    try:
        Config.load(path, texts=texts)
    except ConfigError as error:
        return error.mistakes
    return ()


def _loaded(path: Path, texts: Mapping[Path, str] | None = None) -> Config | None:
    """Return the configuration; None if it has mistakes, of which one may be mended now."""
    try:
        return Config.load(path, texts=texts)
    except ConfigError:
        _parsed(path, texts[path] if texts and path in texts else text_of(path, ()))
        return None


def _names(config: Config | None) -> list[str]:
    return [] if config is None else list(config.models)


def _file_of(config: Config | None, path: Path, keys: Keys) -> Path:
    """Return the file that has a key, or whose table would get it."""
    places = {} if config is None else config.places
    found = (places.get(keys[:count]) for count in range(len(keys), 0, -1))
    return next(filter(None, found), path)


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return copy.deepcopy(loads(text))
    except TOMLDecodeError:
        Config.load(path)
        raise


def _at(value: Any, keys: Keys) -> Any:  # noqa: ANN401 - a TOML value
    for key in keys:
        if not isinstance(value, dict):
            raise KeyError(key)
        value = value[key]
    return value


def _is_same(text: str, expected: dict[str, Any]) -> bool:
    """Return whether a text has a value, but for tables that are empty."""
    try:
        value = loads(text)
    except TOMLDecodeError:
        return False
    return bool(_dense(value) == _dense(expected))


def _dense(value: Any) -> Any:  # noqa: ANN401 - a TOML value
    if not isinstance(value, dict):
        return (type(value), value)
    found = {key: _dense(each) for key, each in value.items()}
    return {key: each for key, each in found.items() if each != {}}


def _set(text: str, keys: Keys, value: Any) -> str:  # noqa: ANN401 - a TOML value
    import tomlkit  # noqa: PLC0415 - only for changes

    document = tomlkit.parse(text)
    table: Any = document
    for depth, key in enumerate(keys[:-1], 1):
        if key not in table:
            is_last = depth == len(keys) - 1
            table[key] = tomlkit.table(is_super_table=not is_last)
        table = table[key]
    table[keys[-1]] = value
    return tomlkit.dumps(document)


def _deleted(text: str, keys: Keys) -> str:
    import tomlkit  # noqa: PLC0415 - only for changes

    document = tomlkit.parse(text)
    del _at(document, keys[:-1])[keys[-1]]
    return tomlkit.dumps(document)
