"""Writes what was imported: as a new file, or into an existing one, whose comments stay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.config.config import Config, names_of
from llama_runner.config.edit import replace_text
from llama_runner.config.errors import dotted
from llama_runner.config.read_config_file import text_of
from llama_runner.config.toml import TOMLDecodeError, loads
from llama_runner.config.toml_statements import lines_of
from llama_runner.core.errors import StoreError, UsageError
from llama_runner.store.layout import user_path
from llama_runner.system.atomic_output import new_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llama_runner.config.import_report import Imported


def file_text(imported: Imported) -> str:
    """Return the content of a new file."""
    import tomlkit  # noqa: PLC0415 - only for an import

    return tomlkit.dumps(imported.tables)


def write_new(path: str | os.PathLike[str], imported: Imported) -> Path:
    """Write a new file and return its path; ``UsageError`` if it exists."""
    text = file_text(imported)
    check_text(text, Path(os.path.abspath(path)))  # noqa: PTH100 - links are not followed
    return write_text(path, text, hint="--into adds to a file")


def write_text(path: str | os.PathLike[str], text: str, *, hint: str | None = None) -> Path:
    """Write a new file and return its path; ``UsageError`` if it exists."""
    target = Path(os.path.abspath(path))  # noqa: PTH100 - links are not followed
    try:
        with new_file(target) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"{target} exists", hint=hint or "name another file") from None
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def write_into(path: str | os.PathLike[str], imported: Imported, origin: str, *, force: bool = False) -> Path:
    """Add the models to an existing file and return its path. Its comments and its order stay.

    Defaults of the import go into its models, as those of the file count for all. ``origin`` is the foreign file, for
    messages. ``force``: models of the same name are replaced; otherwise they are a ``UsageError``. The file is
    unchanged unless the result is a valid configuration.
    """
    import tomlkit  # noqa: PLC0415 - only for an import

    target = Path(os.path.abspath(user_path(path)))  # noqa: PTH100 - links are not followed
    text = text_of(target, ())
    config = check_text(text, target)
    document = tomlkit.parse(text)
    models = _with_defaults(imported.tables)
    _check_names(config, models, imported, origin, force=force)
    table = document.setdefault("models", tomlkit.table(is_super_table=True))
    for name, model in models.items():
        if name in table:
            del table[name]
        table[name] = model
    _add_variables(document, imported.tables.get("environment", ()))
    written = tomlkit.dumps(document)
    check_text(written, target)
    replace_text(target, written, before=text, insist=True)
    return target


def check_text(text: str, path: Path) -> Config:
    """Return a text as the configuration that it would be at a path; raises ``ConfigError``.

    A variable of the environment that is not set is no mistake.
    """
    try:
        declared = loads(text).get("environment", ())
    except (TOMLDecodeError, RecursionError):
        declared = ()
    variables = {name: "/" for name in declared if isinstance(name, str)} if isinstance(declared, list) else {}
    return Config.load(path, environment={**variables, **os.environ}, text=text)


def _with_defaults(tables: Mapping[str, Any]) -> dict[str, Any]:
    defaults = tables.get("defaults", {})
    return {name: {**defaults, **model} for name, model in tables["models"].items()}


def _check_names(config: Config, models: Mapping[str, Any], imported: Imported, origin: str, *, force: bool) -> None:
    taken = {name: model for model in config.models.values() for name in names_of(model)}
    for name, model in models.items():
        for each in _names(name, model):
            other = taken.get(each)
            if other is None or (force and other.name in models):
                continue
            place = other.path or config.path
            line = lines_of(config.texts[place]).get(("models", other.name))
            raise UsageError(
                f"the name {each} is taken: {place}:{line} declares {dotted(('models', other.name))}, "
                f"{origin}:{imported.lines.get(name, 1)} names it too",
                hint="--force replaces models of the same name; --name gives another one",
            )


def _names(name: str, model: Mapping[str, Any]) -> Iterator[str]:
    yield name
    yield from model.get("aliases", ())
    for variant, table in model.get("variants", {}).items():
        yield f"{name}:{variant}"
        yield from table.get("aliases", ())


def _add_variables(document: Any, names: Any) -> None:  # noqa: ANN401 - tomlkit's document, a list of texts
    if missing := [name for name in names if name not in document.get("environment", ())]:
        document["environment"] = [*document.get("environment", ()), *missing]
