"""``Config``: the content of ``llama-runner.toml``, checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.config.errors import ConfigError, dotted, unknown_model_error
from llama_runner.config.find import FILE_NAME
from llama_runner.config.known_keys import ADAPTER, SOURCES
from llama_runner.config.layers import Resolved, resolved
from llama_runner.config.parsed_tables import Adapter, Gateway, Memory, Model, Settings, StoreTable, Variant
from llama_runner.config.presets import PRESETS
from llama_runner.config.read_config_file import Reader
from llama_runner.config.value_types import path_of
from llama_runner.core.immutable_values import Value
from llama_runner.sources.parse_lora_option import is_adapter_name, is_bare_name, is_local
from llama_runner.store.layout import user_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llama_runner.config.toml import ParsedFiles

__all__ = ["FILE_NAME", "Config", "Model"]


class Config(Value, eq=False):
    """A configuration file with its includes."""

    path: Path
    """The file; relative paths in it are taken from its directory."""
    models: Mapping[str, Model]
    """The declared models by name, in the order of the file."""
    presets: Mapping[str, Settings]
    """The presets of the file, and the built-in ones that it does not replace."""
    defaults: Settings
    gateway: Gateway
    store: StoreTable
    texts: Mapping[Path, str]
    """The text of each file that was read."""
    places: Mapping[tuple[str, ...], Path]
    """The file that a table is from."""

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        environment: Mapping[str, str] | None = None,
        text: str | None = None,
        texts: Mapping[Path, str] | None = None,
        parsed: ParsedFiles | None = None,
    ) -> Config:
        """Read and check a file. Raises ``ConfigError`` with every mistake, ``UsageError`` if there is no such file.

        ``environment`` has the variables that values may use; None: those of this process. ``text`` stands for the
        content of the file, ``texts`` for those of files that it includes: so a change is checked before it is written.
        ``parsed`` has files that were parsed before.
        """
        path = Path(os.path.abspath(user_path(path)))  # noqa: PTH100 - links are not followed
        texts = {**(texts or {}), **({} if text is None else {path: text})}
        reader = Reader(os.environ if environment is None else environment, texts, parsed)
        reader.read(path)
        found = cls(
            path=path,
            models={name: _model(name, table, reader) for name, table in reader.tables["models"].items()},
            presets=PRESETS | {name: _settings(table) for name, table in reader.tables["presets"].items()},
            defaults=_settings(reader.tables["defaults"]),
            gateway=_gateway(reader.tables["gateway"]),
            store=StoreTable(**reader.tables["store"]),
            texts=reader.files,
            places=reader.places,
        )
        _check_references(found, reader)
        if reader.mistakes:
            order = list(reader.files)
            raise ConfigError(sorted(reader.mistakes, key=lambda each: (order.index(each.path), each.line or 0)))
        return found

    def only(self, names: Iterable[str]) -> Config:
        """Return the configuration with some of its models; ``UsageError`` for a name that is not declared."""
        chosen = [self.model(name).name for name in names]
        return self.replace(models={name: model for name, model in self.models.items() if name in chosen})

    def find(self, name: str) -> Model | None:
        """Return the model with a name or an alias, or the one of a variant; None without one."""
        if (model := self.models.get(name)) is not None:
            return model
        return next((each for each in self.models.values() if name in names_of(each)), None)

    def model(self, name: str) -> Model:
        """Return the model with a name or an alias; ``UsageError`` with the nearest name without one."""
        found = self.find(name)
        if found is None:
            raise unknown_model_error(name, self.path, list(self.models))
        return found

    def resolved(
        self,
        name: str,
        profile: Callable[[str], Mapping[str, str]] | None = None,
        *,
        chosen: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Resolved:
        """Return what a declared model is run with: the layers of the file as one.

        ``name`` may be an alias, or the name of a variant or an adapter. ``profile`` returns the options of
        llama-server that ``tune`` saved under a name; None: profiles are left out. ``chosen`` is the profile to use
        instead of the one that the file names. What ``environment`` sets, by default that of this process, counts more
        than the file.
        """
        return resolved(
            self.model(name),
            name,
            self.presets,
            self.defaults,
            profile=profile,
            chosen=chosen,
            environment=os.environ if environment is None else environment,
        )


def names_of(model: Model) -> list[str]:
    """Return every name that means a model: its own, its aliases, and those of its variants and adapters."""
    found = [model.name, *model.aliases]
    for variant in model.variants.values():
        found += [f"{model.name}:{variant.name}", *variant.aliases]
    return [*found, *(f"{model.name}:{adapter}" for adapter in model.adapters)]


def _settings(table: Mapping[str, Any]) -> Settings:
    return Settings(**_fields(table))


def _fields(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table as the fields of ``Settings``: options of ``run`` under ``options``."""
    fields = {key: value for key, value in table.items() if key in Model.fields and key != "options"}
    if isinstance(sessions := fields.get("sessions"), dict):
        fields["sessions"] = {key: str(value) if isinstance(value, Path) else value for key, value in sessions.items()}
    return {**fields, "options": {key: value for key, value in table.items() if key not in fields}}


def _model(name: str, table: Mapping[str, Any], reader: Reader) -> Model:
    keys = ("models", name)
    variants = {key: Variant(key, **each) for key, each in table.get("variants", {}).items()}
    adapters = {}
    for key, each in table.get("adapters", {}).items():
        adapter_keys = (*keys, "adapters", key)
        if not is_adapter_name(key):
            reader.add(None, adapter_keys, f"{key!r} is no name of an adapter", "use letters, digits, '.', '_' and '-'")
        elif "path" in each and "source" in each:
            reader.add(None, adapter_keys, "path and source both name an adapter", "give one")
        elif "path" in each or "source" in each:
            adapters[key] = _adapter(key, each, reader.place_of(adapter_keys).parent)
        elif not any(reader.has_mistake(*adapter_keys, name) for name in ("path", "source")):
            reader.add(None, adapter_keys, "has no path", f"the keys here are {', '.join(sorted(ADAPTER))}")
    fields = {**_fields(table), "variants": variants, "adapters": adapters}
    model = Model(name=name, path=reader.place_of(keys), **fields)
    sources = [key for key in ("source", *SOURCES) if table.get(key)]
    if len(sources) > 1:
        reader.add(None, keys, f"{' and '.join(sources)} both name a model", "give one")
    elif not sources and not _is_told(reader, keys):
        reader.add(None, keys, "has no source", 'write source = "ORG/MODEL", a file or a directory')
    return model


def _adapter(name: str, table: Mapping[str, Any], base: Path) -> Adapter:
    """Return an adapter; a source that is a path becomes one."""
    if (source := table.get("source")) is not None and is_local(source, base) and not is_bare_name(source, base):
        table = {**{key: value for key, value in table.items() if key != "source"}, "path": path_of(source, base)}
    return Adapter(name, **table)


def _is_told(reader: Reader, keys: tuple[str, ...]) -> bool:
    """Return whether a mistake says already that the source of a model is wrong, or that its key is misspelt."""
    above = f"{dotted(keys)}."
    told = {f"{above}{key}" for key in ("source", *SOURCES)}
    return any(
        mistake.key in told or (mistake.key.startswith(above) and mistake.hint == "did you mean source?")
        for mistake in reader.mistakes
    )


def _gateway(table: Mapping[str, Any]) -> Gateway:
    return Gateway(**{**table, "memory": Memory(**table.get("memory", {}))})


def _check_references(config: Config, reader: Reader) -> None:
    """Add mistakes for names that mean nothing or two things, and for presets that lead to themselves."""
    places: tuple[tuple[tuple[str, ...], Settings], ...] = (
        (("defaults",), config.defaults),
        *((("presets", name), preset) for name, preset in config.presets.items()),
        *((("models", name), model) for name, model in config.models.items()),
    )
    for keys, settings in places:
        if settings.preset is not None and settings.preset not in config.presets:
            known = f"the presets are {', '.join(sorted(config.presets))}"
            hint = reader.did_you_mean(settings.preset, config.presets) or known
            reader.add(None, (*keys, "preset"), f"there is no preset {settings.preset!r}", hint)
    for name in config.presets:
        chain = [name]
        while (after := config.presets[chain[-1]].preset) in config.presets and len(chain) <= len(config.presets):
            chain.append(str(after))
            if after == name:
                reader.add(None, ("presets", name, "preset"), f"leads to itself: {' → '.join(chain)}")
                break
            if after in chain[:-1]:
                break
    _check_names(config, reader)


def _check_names(config: Config, reader: Reader) -> None:
    owners: dict[str, str] = {name: name for name in config.models}
    for model in config.models.values():
        keys: tuple[str, ...] = ("models", model.name)
        claimed = [(alias, (*keys, "aliases")) for alias in model.aliases]
        for variant in model.variants.values():
            below = (*keys, "variants", variant.name)
            claimed += [(f"{model.name}:{variant.name}", below)]
            claimed += [(alias, (*below, "aliases")) for alias in variant.aliases]
        claimed += [(f"{model.name}:{key}", (*keys, "adapters", key)) for key in model.adapters]
        for alias, place in claimed:
            if alias in owners:
                reader.add(None, place, f"{alias!r} is a name of {owners[alias]!r} too", "a name means one model")
            else:
                owners[alias] = model.name
    for model in config.models.values():
        if model.source in owners and model.source != model.name:
            hint = f"write the source of {model.source}, or a variant of it: [models.NAME.variants.{model.name}]"
            reader.add(None, ("models", model.name, "source"), f"{model.source!r} is declared here too", hint)
        for other in model.fallback or ():
            if other not in owners:
                place = ("models", model.name, "fallback")
                reader.add(None, place, f"there is no model {other!r}", reader.did_you_mean(other, owners))
