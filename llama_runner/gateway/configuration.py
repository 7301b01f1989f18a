"""From the configuration file to what the gateway serves. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.gateway.scheduler_state import Limits, Policy
from llama_runner.gateway.served_models import Catalogue, DeclaredModel, ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llama_runner.config.config import Config
    from llama_runner.config.layers import Resolved
    from llama_runner.config.parsed_tables import Model
    from llama_runner.gateway.sessions.session_settings import SessionSettings


def catalogue_from(
    config: Config,
    profile: Callable[[str], Mapping[str, str]] | None = None,
    version: Callable[[str], tuple[int, ...]] = lambda _where: (),
) -> Catalogue:
    """Return everything that a configuration declares.

    A model, its aliases, variants and adapters share one process. ``profile`` returns the options that ``tune`` saved
    under a name, ``version`` what changes when the files of an adapter are replaced.
    """
    declared: dict[str, DeclaredModel] = {}
    served: dict[str, ServedModel] = {}
    for model in config.models.values():
        layers = config.resolved(model.name, profile)
        declared[model.name] = _with_adapters(_declared(model.name, layers), model, version)
        names = [_served(model.name, model.name, layers), *_of_aliases(model, layers), *_of_variants(model, layers)]
        names += [
            _served(f"{model.name}:{each.name}", model.name, layers, base=model.name, adapters={each.name: each.scale})
            for each in model.adapters.values()
        ]
        served |= {each.name: each for each in names}
    return Catalogue(declared, served)


def _declared(name: str, layers: Resolved) -> DeclaredModel:
    return DeclaredModel(
        name=name,
        source=layers.source,
        keywords=dict(layers.keywords),
        server=layers.server,
        pin=bool(layers.get("pin")),
        ttl=layers.get("ttl") or None,
        preload=bool(layers.get("preload")),
        max_ctx_size=layers.get("max_ctx_size"),
        sessions=_sessions(layers.get("sessions")),
    )


def _sessions(given: Any) -> SessionSettings | None:  # noqa: ANN401 - true, false or a table
    if not given and not isinstance(given, dict):
        return None
    from llama_runner.gateway.sessions.session_settings import settings_of  # noqa: PLC0415 - only for them

    return settings_of(given)


def _with_adapters(declared: DeclaredModel, model: Model, version: Callable[[str], tuple[int, ...]]) -> DeclaredModel:
    """Return a model whose process has all adapters loaded, none of them applied."""
    if not model.adapters:
        return declared
    every = model.adapters.values()
    return declared.replace(
        lora={each.name: each.option.replace(scale=0.0).text for each in every},
        adapters={each.name: each.scale for each in every},
        versions=tuple(version(each.where) for each in every),
    )


def _served(name: str, declared: str, layers: Resolved, **facts: Any) -> ServedModel:  # noqa: ANN401 - its fields
    own = {"hidden": bool(layers.get("hidden")), "system": layers.get("system")}
    return ServedModel(name=name, declared=declared, fallbacks=layers.get("fallback") or (), **{**own, **facts})


def _of_aliases(model: Model, layers: Resolved) -> list[ServedModel]:
    return [_served(alias, model.name, layers, is_alias=True) for alias in model.aliases]


def _of_variants(model: Model, layers: Resolved) -> list[ServedModel]:
    found = []
    for variant in model.variants.values():
        facts = {
            "hidden": bool(layers.get("hidden") if variant.hidden is None else variant.hidden),
            "system": layers.get("system") if variant.system is None else variant.system,
            "sampling": dict(variant.sampling),
            "template": dict(variant.template),
        }
        found.append(_served(f"{model.name}:{variant.name}", model.name, layers, **facts))
        found += [_served(alias, model.name, layers, is_alias=True, **facts) for alias in variant.aliases]
    return found


def policies_of(models: Iterable[DeclaredModel]) -> tuple[Policy, ...]:
    """Return what the scheduler has to know of each declared model."""
    return tuple(
        Policy(model.name, launch_of(model), pin=model.pin, ttl=model.ttl, preload=model.preload) for model in models
    )


def launch_of(model: DeclaredModel) -> str:
    """Return a digest of all that decides how a model is prepared and started."""
    server = {name: value for name, value in model.server.__dict__.items() if name not in ("host", "port", "names")}
    what = repr((str(model.source), sorted(model.keywords.items()), sorted(server.items()), model.sessions))
    what += repr((model.lora, model.versions)) if model.lora else ""
    return hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def process_name(name: str) -> str:
    """Return the name that a process gives its model: llama-server separates names by commas."""
    return name.replace(",", "_").strip() or "_"


class MemoryLimits(Value):
    """Memory for all models together: bytes, a part such as ``80%``, or None for what is available."""

    host: int | str | None = None
    device: int | str | None = None
    prompt_cache: int | None = None
    """Bytes of the prompt caches of all models together; part of ``host``. None: a tenth of it, 4 GiB at most."""


def share_of(limit: int | str | None, total: int) -> int:
    """Return a limit in bytes: ``80%`` is a part of ``total``."""
    if limit is None:
        return total
    if isinstance(limit, str):
        return int(total * float(limit.removesuffix("%")) / 100)
    return min(limit, total)


def limits_of(table: Mapping[str, Any]) -> Limits:
    """Return the scheduler's limits, with those that are not None."""
    return Limits(**{name: value for name, value in table.items() if value is not None})
