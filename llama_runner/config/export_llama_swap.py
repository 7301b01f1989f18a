"""Exports declared models to the YAML file of llama-swap. Its commands start llama-server itself."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_runner.config.export_models import Exported, Exports, Launch

NAME = "llama-swap"


def export_llama_swap(exports: Exports, *, windows: bool) -> Exported:
    """Return a file. ``windows``: commands are quoted as llama-swap splits them there."""
    models: dict[str, Any] = {}
    for name, launch in exports.launches.items():
        if (table := _model(exports, name, launch, windows=windows)) is not None:
            models[name] = table
    document: dict[str, Any] = {}
    timeouts = {name: exports.launches[name].resolved.values.get("load_timeout") for name in models}
    if set(timeouts.values()) - {None}:
        longest = max(value for value in timeouts.values() if value is not None)
        document["healthCheckTimeout"] = int(longest)
        for name, value in timeouts.items():
            if value != longest:
                exports.note(name, "load_timeout", f"llama-swap has one for all models: {int(longest)}")
    document["models"] = models
    if pinned := [name for name in models if exports.launches[name].resolved.get("pin")]:
        document["groups"] = {"pinned": {"swap": False, "exclusive": False, "persistent": True, "members": pinned}}
    if preloaded := [name for name in models if exports.launches[name].resolved.get("preload")]:
        document["hooks"] = {"on_startup": {"preload": preloaded}}
    return exports.finished(NAME, _yaml(document), models)


def _model(exports: Exports, name: str, launch: Launch, *, windows: bool) -> dict[str, Any] | None:
    options = exports.writable(name, launch, _unwritable)
    if options is None:
        return None
    lines = [_quoted(launch.program, windows=windows), "--host 127.0.0.1", "--port ${PORT}"]
    for option, value in options:
        if option not in ("--host", "--port"):
            lines.append(option if value is None else f"{option} {_quoted(value, windows=windows)}")
    resolved = launch.resolved
    table: dict[str, Any] = {"cmd": _Block("\n".join(lines) + "\n")}
    if launch.names:
        table["aliases"] = list(launch.names)
    if (ttl := resolved.get("ttl")) is not None:
        table["ttl"] = int(ttl)
        if ttl != int(ttl):
            exports.note(name, "ttl", f"rounded to {int(ttl)} seconds")
    if resolved.get("hidden"):
        table["unlisted"] = True
    if parameters := _variants(exports, launch):
        table["filters"] = {"setParamsByID": parameters}
    return table


def _variants(exports: Exports, launch: Launch) -> dict[str, Any]:
    """Return the parameters that the name of each variant sets."""
    model = launch.resolved.model
    parameters: dict[str, Any] = {}
    for variant in model.variants.values():
        given: dict[str, Any] = dict(variant.sampling)
        if variant.template:
            given["chat_template_kwargs"] = dict(variant.template)
        parameters[f"{model.name}:{variant.name}"] = given
        if variant.system or variant.hidden or variant.aliases:
            note = "system, hidden and aliases are not exported: a variant changes parameters of requests only"
            exports.note(model.name, f"variants.{variant.name}", note)
    return parameters


class _Block(str):
    """A text that YAML writes as a block, line by line."""

    __slots__ = ()


def _yaml(document: dict[str, Any]) -> str:
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - only for an export

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Writes commands as blocks, and no aliases."""

        def ignore_aliases(self, _data: Any) -> bool:  # noqa: ANN401 - PyYAML's
            """See PyYAML."""
            return True

    Dumper.add_representer(
        _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
    )
    return str(yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10_000))


def _quoted(value: str, *, windows: bool) -> str:
    if not windows:
        return shlex.quote(value)
    if value and not re.search(r"[\s\"'^&|<>]", value):
        return value
    return '"' + value.replace('"', '\\"') + '"'


def _unwritable(value: str) -> str | None:
    """Return why llama-swap would read another value; None if it reads this one."""
    if "${" in value:
        return "has ${, which begins a macro"
    return None if value.isprintable() else "has control characters"
