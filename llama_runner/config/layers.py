"""The layers of a configuration as one: model, its preset, the profile of ``tune``, ``[defaults]``.

The first that sets a key counts. ``llama``, ``sampling`` and ``template`` are put together key by key. What the command
line says counts more and is known by the caller only; what nothing sets has its built-in value.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_runner.config.known_keys import MODEL_OPTIONS, OPTION_OF, SAMPLING, SOURCES
from llama_runner.config.parsed_tables import Adapter, Model, Settings
from llama_runner.config.value_types import is_path, path_of
from llama_runner.core.immutable_values import Value
from llama_runner.serving.llama_server.launch_spec import ServerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from llama_runner.request.request_keywords import RunnerKeywords

_OF_MODEL = ("system", "pin", "ttl", "preload", "hidden", "sessions", "max_ctx_size", "fallback")
"""Fields of ``Settings`` that the first layer with a value decides."""


class Setting(Value, eq=False):
    """A value and the layer that set it."""

    value: Any
    origin: str
    """``variable NAME``, ``variant NAME``, ``model``, ``preset NAME``, ``profile NAME``, ``defaults``."""


class Resolved(Value, eq=False):
    """What a declared model is run with."""

    model: Model
    names: tuple[str, ...]
    """The names that the server answers to; the first is the one that it has in ``ps``."""
    source: str | None
    """What ``run`` takes as MODEL; None where a keyword names it."""
    settings: Mapping[str, Setting]
    """Every key that a layer sets, with tables as ``llama.parallel``."""
    values: Mapping[str, Any]
    """Values of options of ``run``, by ``Option.name``."""
    words: tuple[str, ...]
    """Options for llama-server."""

    @property
    def keywords(self) -> RunnerKeywords:
        """The keywords of ``Runner.prepare``."""
        return self._read_by("artifacts")  # type: ignore[return-value]

    @property
    def server(self) -> ServerOptions:
        """The options of the server."""
        given = self._read_by("server")
        fixed = tuple(given) if given.get("inherit_environment") else ()
        return ServerOptions(**given, extra=self.words, names=self.names, fixed=fixed)

    @property
    def life_cycle(self) -> dict[str, Any]:
        """``restart`` and ``restart_limit``, where they are set."""
        return self._read_by("supervisor")

    def over(
        self, server: ServerOptions | None, keywords: RunnerKeywords
    ) -> tuple[str | None, ServerOptions, RunnerKeywords]:
        """Return model, options of the server and keywords, where those that are given here count more.

        A field of ``server`` counts as given if it does not have its default.
        """
        own = self.server
        if server is not None:
            plain = ServerOptions()
            given = {name: value for name, value in server.__dict__.items() if value != getattr(plain, name)}
            own = own.replace(**{**given, "extra": (*self.words, *server.extra)})
        return self.source, own, {**self.keywords, **keywords}

    def get(self, key: str) -> Any:  # noqa: ANN401 - of the key's kind
        """Return the value of a key that is no option of ``run``, such as ``ttl``; None if nothing sets it."""
        return self.settings[key].value if key in self.settings else None

    def _read_by(self, reader: str) -> dict[str, Any]:
        return {name: value for name, value in self.values.items() if OPTION_OF[name].reader == reader}


def resolved(
    model: Model,
    name: str,
    presets: Mapping[str, Settings],
    defaults: Settings,
    *,
    profile: Callable[[str], Mapping[str, str]] | None,
    chosen: str | None,
    environment: Mapping[str, str],
) -> Resolved:
    """Return the layers of a model, or of its variant or adapter of that name, as one."""
    found = {
        key: Setting("…" if option.secret else environment[option.environment], f"variable {option.environment}")
        for key, option in MODEL_OPTIONS.items()
        if option.environment is not None and environment.get(option.environment)
    }
    outside = set(found)
    base, (names, part) = model.path.parent, _part_of(model, name)
    for origin, layer in (*part, *_layers(model, presets, defaults, profile, chosen)):
        for key, value in _flat(layer):
            found.setdefault(key, Setting(value, origin))
    if model.source is not None or any(name in model.options for name in SOURCES):
        found = {key: each for key, each in found.items() if key not in SOURCES or each.origin == "model"}
    options = {key: each for key, each in found.items() if key in MODEL_OPTIONS and key not in outside}
    values = {MODEL_OPTIONS[key].name: each.value for key, each in options.items() if key != "profile"}
    source = model.source
    if source is not None and is_path(source, base):
        source = str(path_of(source, base))
    if (adapter := _adapter_of(model, name)) is not None:
        values["lora"] = (*values.get("lora", ()), adapter.option.text)
        found["lora"] = Setting(values["lora"], f"adapter {adapter.name}")
    return Resolved(model, names, source, found, values, tuple(_words(found)))


def _adapter_of(model: Model, name: str) -> Adapter | None:
    """Return the adapter of a model that a name means."""
    return next((each for each in model.adapters.values() if name == f"{model.name}:{each.name}"), None)


def _part_of(model: Model, name: str) -> tuple[tuple[str, ...], list[tuple[str, Settings]]]:
    """Return the names of what a name means, the first for ``ps``, and the layer of a variant."""
    for variant in model.variants.values():
        names = (f"{model.name}:{variant.name}", *variant.aliases)
        if name in names:
            layer = Settings(sampling=variant.sampling, template=variant.template, system=variant.system)
            return names, [(f"variant {variant.name}", layer)]
    if _adapter_of(model, name) is not None:
        return (name,), []
    return (model.name, *model.aliases), []


def _layers(
    model: Model,
    presets: Mapping[str, Settings],
    defaults: Settings,
    profile: Callable[[str], Mapping[str, str]] | None,
    chosen: str | None,
) -> Iterator[tuple[str, Settings]]:
    found: list[tuple[str, Settings]] = [("model", model)]
    name = model.preset or defaults.preset
    while name is not None and name in presets:
        found.append((f"preset {name}", presets[name]))
        name = presets[name].preset
    yield from found
    chosen = chosen or next(
        (each.options["profile"] for _, each in (*found, ("", defaults)) if "profile" in each.options), None
    )
    if profile is not None and chosen is not None:
        yield f"profile {chosen}", _of_profile(profile(chosen))
    yield "defaults", defaults


def _of_profile(saved: Mapping[str, str]) -> Settings:
    threads = saved.get("--threads", "")
    llama = {option.removeprefix("--"): value for option, value in saved.items() if option != "--threads"}
    return Settings({"threads": int(threads)} if threads.isdigit() else {}, llama)


def _flat(layer: Settings) -> Iterator[tuple[str, Any]]:
    yield from layer.options.items()
    for part in ("llama", "sampling", "template"):
        for key, value in getattr(layer, part).items():
            yield f"{part}.{key}", value
    for key in _OF_MODEL:
        if (value := getattr(layer, key)) is not None:
            yield key, value


def _words(settings: Mapping[str, Setting]) -> list[str]:
    """Return the options for llama-server that ``llama``, ``sampling`` and ``template`` stand for."""
    words: list[str] = []
    template: dict[str, Any] = {}
    for key in sorted(settings):
        value = settings[key].value
        part, _, name = key.partition(".")
        if part == "template":
            template[name] = value
        elif part == "sampling" and name:
            words += [f"--{SAMPLING[name]}", f"{value:.10g}"]
        elif part == "llama" and name:
            words += _llama_words(name, value)
    return [*words, *(("--chat-template-kwargs", json.dumps(template, sort_keys=True)) if template else ())]


def _llama_words(name: str, value: Any) -> list[str]:  # noqa: ANN401 - text, number, bool, list
    flag = name if name.startswith("-") else f"--{name}"
    if value is True:
        return [flag]
    if value is False:
        return [f"--no-{name}"]
    return [word for each in (value if isinstance(value, list) else [value]) for word in (flag, str(each))]
