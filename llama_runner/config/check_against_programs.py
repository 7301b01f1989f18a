"""Further checks of a configuration: options against the programs that are installed, paths, ports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llama_runner.config.errors import Mistake, did_you_mean, dotted
from llama_runner.config.known_keys import MODEL_OPTIONS, SAMPLING_FLAGS
from llama_runner.config.presets import PRESETS
from llama_runner.config.value_types import shown
from llama_runner.sources.parse_lora_option import is_bare_name, is_local, parse_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llama_runner.config.config import Config
    from llama_runner.config.parsed_tables import Settings
    from llama_runner.llama_cpp.capabilities import Capabilities, Flag

Keys = tuple[str, ...]


class Places:
    """Finds the file and the line of keys of a configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lines: dict[Path, dict[Keys, int]] = {}

    def find(self, keys: Keys) -> tuple[Path, int | None]:
        """Return file and line of a key; the line is None where no file has the key."""
        config = self._config
        path = next(
            (config.places[keys[:count]] for count in range(len(keys), 0, -1) if keys[:count] in config.places),
            config.path,
        )
        if path not in self._lines:
            from llama_runner.config.toml_statements import lines_of  # noqa: PLC0415 - only for messages

            self._lines[path] = lines_of(config.texts[path])
        lines = self._lines[path]
        for spelled in _spellings(keys):
            if spelled in lines:
                return path, lines[spelled]
        return path, None

    def mistake(self, keys: Keys, text: str, hint: str | None = None) -> Mistake:
        """Return a mistake at a key."""
        path, line = self.find(keys)
        return Mistake(path, line, dotted(keys), text, hint)


def check(config: Config, programs: Capabilities | None) -> list[Mistake]:
    """Return the mistakes that the file alone does not show, in the order of the file.

    ``programs`` are those that are installed; None: options of llama-server are not checked.
    """
    places = Places(config)
    found = [places.mistake(*each) for each in _ports(config)]
    found += [places.mistake(*each) for each in _paths(config)]
    if programs is not None:
        names = [name for flag in programs.flags if flag.removed is None for name in flag.names]
        for keys, settings in _tables(config):
            for key, value in settings.llama.items():
                if (wrong := _wrong_option(programs, names, key, value)) is not None:
                    found.append(places.mistake((*keys, "llama", key), *wrong))
    order = list(config.texts)
    return sorted(found, key=lambda each: (order.index(each.path), each.line or 0))


def _tables(config: Config) -> Iterator[tuple[Keys, Settings]]:
    yield ("defaults",), config.defaults
    for name, preset in config.presets.items():
        if preset is not PRESETS.get(name):
            yield ("presets", name), preset
    for name, model in config.models.items():
        yield ("models", name), model


def _ports(config: Config) -> Iterator[tuple[Keys, str, str]]:
    used = dict.fromkeys(config.gateway.listen or (), "the gateway")
    for name, model in config.models.items():
        port = model.options.get("port")
        if not port:
            continue
        host = str(model.options.get("host") or config.defaults.options.get("host") or "127.0.0.1")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if address in used:
            yield ("models", name, "port"), f"{address} is the address of {used[address]} too", "0 takes a free port"
        used.setdefault(address, name)


def _paths(config: Config) -> Iterator[tuple[Keys, str]]:
    for keys, path in _named_paths(config):
        if not os.path.exists(path):  # noqa: PTH110 - hundreds of them, and an error is False
            yield keys, f"{path} does not exist"


def _named_paths(config: Config) -> Iterator[tuple[Keys, str | Path]]:
    for keys, settings in _tables(config):
        for key, value in settings.options.items():
            yield from (((*keys, key), each) for each in _paths_of(key, value))
    for name, model in config.models.items():
        if model.source is not None and os.path.isabs(model.source):  # noqa: PTH117 - as above
            yield ("models", name, "source"), model.source
        for adapter in model.adapters.values():
            if adapter.path is not None:
                yield ("models", name, "adapters", adapter.name, "path"), adapter.path
    for key in ("api_key_file", "limits_file", "tls_cert", "tls_key"):
        if (path := getattr(config.gateway, key)) is not None:
            yield ("gateway", key), path


def _paths_of(key: str, value: Any) -> list[str]:  # noqa: ANN401 - of the key's kind
    option = MODEL_OPTIONS.get(key)
    if option is None or option.name == "lock_file":
        return []
    if option.kind in ("file", "directory"):
        return [os.fspath(value)]
    if option.name == "lora":
        return [
            each.where for each in map(parse_adapter, value) if is_local(each.where) and not is_bare_name(each.where)
        ]
    if option.name == "patches":
        return [each for each in value if "://" not in each]
    return []


def _wrong_option(
    programs: Capabilities,
    names: list[str],
    key: str,
    value: Any,  # noqa: ANN401 - text, number, bool, list
) -> tuple[str, str | None] | None:
    """Return what is wrong with an option of llama-server, and the way out; None if nothing is."""
    name = key if key.startswith("-") else f"--{key}"
    flag = programs.flag(f"--no-{key}" if value is False and not key.startswith("-") else name)
    if flag is None and value is False and (flag := programs.flag(name)) is not None:
        return f"expected {_expected(flag)}, got false", None
    if flag is None:
        bare = {each.lstrip("-") for each in names if each.startswith("--")}
        hint = did_you_mean(key.lstrip("-").replace("_", "-"), bare)
        return "llama-server has no such option", hint or "llama-runner run -- --help lists the options"
    if flag.removed is not None:
        return "llama-server has this option no longer", flag.removed or None
    values = value if isinstance(value, list) else [value]
    if len(values) > 1 and not flag.repeatable:
        return f"may be given once, got {shown(value)}", None
    if all(_fits(flag, each) for each in values):
        return None
    return f"expected {_expected(flag)}, got {shown(value)}", None


def _fits(flag: Flag, value: Any) -> bool:  # noqa: ANN401 - text, number, bool
    if isinstance(value, bool) or flag.kind == "none":
        return flag.kind == "none" and isinstance(value, bool)
    if flag.kind == "number":
        if isinstance(value, str) and value not in flag.choices:
            try:
                float(value)
            except ValueError:
                return False
        return True
    return flag.kind != "choice" or str(value) in flag.choices


def _expected(flag: Flag) -> str:
    words = " or ".join(map(repr, flag.choices))
    match flag.kind:
        case "none":
            return "true or false"
        case "number":
            return f"a number or {words}" if words else "a number"
        case "choice":
            return words
        case "file":
            return "a path"
    return "text"


def _spellings(keys: Keys) -> Iterator[Keys]:
    """Return the ways in which a file may have a key: options of ours also as options of llama-server."""
    yield keys
    above, key = keys[:-1], keys[-1]
    if above[-1:] == ("llama",):
        yield (*above, key.replace("-", "_"))
        yield from ((*above, flag) for flag in (f"--{key}", f"--{key.replace('-', '_')}"))
        return
    option = MODEL_OPTIONS.get(key)
    for flag in () if option is None else (*option.flags, *option.old_flags):
        bare = flag.lstrip("-")
        yield from ((*above, "llama", each) for each in (bare, bare.replace("-", "_"), flag))
    if above[-1:] == ("sampling",):
        for flag, name in SAMPLING_FLAGS.items():
            if name == key:
                yield from ((*above[:-1], "llama", each) for each in (flag, flag.replace("-", "_"), f"--{flag}"))
