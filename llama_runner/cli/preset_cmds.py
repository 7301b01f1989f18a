"""``presets``: the built-in presets, those of the configuration file, and their numbers for a model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.runner_that_prints import root_of, runner_for
from llama_runner.config.presets import PRESETS, Preset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.config.parsed_tables import Settings

_KEYS = ("preset", "system", "pin", "ttl", "preload", "hidden", "sessions", "max_ctx_size", "fallback")


@click.group()
def presets() -> None:
    """List and show presets: options for a purpose, under one name."""


@presets.command("list")
@shared.store
def list_(**given: Any) -> None:
    """List the built-in presets and those of the file."""
    found = root_of(given).presets()
    rows = [{"name": name, "purpose": _purpose(each), "origin": _origin(name, found)} for name, each in found.items()]
    if given["as_json"]:
        click.echo(json.dumps(rows))
        return
    width = max(len(row["name"]) for row in rows)
    say(*(f"{row['name']:<{width}}  {row['purpose'] or row['origin']}" for row in rows))


@presets.command(cls=GroupedCommand)
@shared.store
@click.argument("name")
@shared.option("--model", "of_model", metavar="MODEL", help="Compute its numbers for this model on this machine.")
@shared.option(
    "--memory",
    type=shared.Size(),
    metavar="SIZE",
    help="Compute them as if so much memory were available.",
    default_text="what is available now",
)
def show(**given: Any) -> None:
    """Show what a preset sets, as it stands in a configuration file.

    With --model the context, the slots and the cache of prompts are computed from the memory that is available, and
    from the size and the cache of the model. A model of the file that names the preset has the numbers without --model.
    """
    name, of_model = given["name"], given["of_model"]
    if given["memory"] is not None and of_model is None:
        raise click.UsageError("--memory is for --model")
    config = root_of(given).config
    preset = runner_for(given, config=config).preset(name, model=of_model, memory=given["memory"])
    origin = _origin(name, config.presets if config is not None else PRESETS)
    about = "" if of_model is None else f"for {of_model} on this machine"
    settings = dict(_settings(preset))
    if given["as_json"]:
        click.echo(json.dumps({"name": name, "purpose": _purpose(preset), "origin": origin, "settings": settings}))
        return
    comments = [f"# {line}" for line in (_purpose(preset), about) if line]
    say(f"[presets.{_key(name)}]", *comments, *(f"{key} = {_toml(value)}" for key, value in settings.items()))


def _purpose(preset: Settings) -> str:
    return preset.purpose if isinstance(preset, Preset) else ""


def _origin(name: str, known: Mapping[str, Settings]) -> str:
    return "built in" if PRESETS.get(name) is known[name] else "configuration file"


def _settings(preset: Settings) -> list[tuple[str, Any]]:
    found = list(preset.options.items())
    found += [
        (f"{part}.{_key(key)}", value)
        for part in ("llama", "sampling", "template")
        for key, value in getattr(preset, part).items()
    ]
    return found + [(key, value) for key in _KEYS if (value := getattr(preset, key)) is not None]


def _key(name: str) -> str:
    """Return a name as a key of TOML: quoted where it has other characters than letters, digits and dashes."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _toml(value: object) -> str:
    """Return a value as TOML; keys and values of presets are texts, numbers, booleans and lists of them."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(value, ensure_ascii=False, default=str)
