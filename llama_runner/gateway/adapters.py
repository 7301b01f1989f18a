"""The LoRA adapters of a process, and which of them a request uses. Pure.

One process serves a model with all its adapters. It is started with each at the scale 0, without a host prompt cache,
and every request that fills the KV cache names the scale of every adapter: llama-server would otherwise reuse what it
computed with another adapter. What cannot carry the list is not sent to such a process.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_runner.core.adapter_scales import GENERATING, AdapterScales, is_scale, scale_list
from llama_runner.core.immutable_values import Value, field
from llama_runner.gateway.errors import BadRequest, Forbidden

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.gateway.access_control import Client
    from llama_runner.gateway.served_models import DeclaredModel, ServedModel
    from llama_runner.serving.llama_server.launch_spec import ServerSpec

FIELD = "lora"
"""The member of a body that chooses adapters: ``[{"name": …, "scale": …}]``."""
_HARMLESS = (
    *("/tokenize", "/detokenize", "/apply-template", "/v1/messages/count_tokens"),
    *("/v1/chat/completions/input_tokens", "/v1/responses/input_tokens"),
)
"""Paths that compute nothing with the model."""
_MOST = 64


class AppliedAdapter(Value):
    """An adapter as a request uses it."""

    name: str
    digest: str
    """Of the GGUF file."""
    scale: float


class PreparedAdapters(Value):
    """What is known of a model's adapters once they are on disk."""

    digests: tuple[str, ...] = ()
    """Of the GGUF files, in the order in which they are loaded."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Why the others are not loaded."""


class LoadedAdapters(Value):
    """The adapters of a process, by their ids."""

    all: AdapterScales = AdapterScales()
    """Those that a request chooses have the usual scale 0."""
    choosable: frozenset[str] = frozenset()
    prepared: PreparedAdapters = PreparedAdapters()

    @classmethod
    def of(cls, spec: ServerSpec, model: DeclaredModel, prepared: PreparedAdapters) -> LoadedAdapters:
        """Return the adapters of a process that was started for a model."""
        every = spec.loaded_adapters if spec.has_adapters else AdapterScales()
        return cls(every, frozenset(model.adapters.keys() - prepared.unusable), prepared)

    def scales(self, model: ServedModel) -> tuple[float, ...]:
        """Return the scale of every adapter for a request to ``model``; ``BadRequest`` for one that is not there."""
        for name in model.adapters:
            if (why := self.prepared.unusable.get(name)) is not None:
                raise BadRequest(f"the adapter {name!r} cannot be used: {why}", field="model")
            if name not in self.choosable:
                raise unknown_adapter(name, sorted(self.choosable))
        return tuple(
            model.adapters.get(name, 0.0) if name in self.choosable else usual
            for name, usual in zip(self.all.names, self.all.scales, strict=True)
        )

    def applied(self, model: ServedModel) -> tuple[AppliedAdapter, ...]:
        """Return the adapters that a request to ``model`` uses, those with the scale 0 left out.

        What is computed with some adapters is of no use with others: this is part of the key of a saved KV cache.
        """
        rows = zip(self.all.names, self.prepared.digests, self.scales(model), strict=False)
        return tuple(AppliedAdapter(name, digest, scale) for name, digest, scale in rows if scale)

    def sent(self, method: str, path: str, options: dict[str, Any], model: ServedModel) -> dict[str, Any]:
        """Return the options of a request to the process with the list of all adapters in its body. ``BadRequest``."""
        if method != "POST" or path in _HARMLESS or path.startswith("/slots/"):
            return options
        scales = self.scales(model)
        if not scales:
            return options
        if path not in GENERATING:
            if not self.choosable:
                return options
            raise BadRequest(
                f"{path} takes no adapters, and llama-server would reuse what it computed with another one",
                field="model",
                hint="declare the model a second time without [models.NAME.adapters]",
            )
        rest = {name: value for name, value in options.items() if name not in ("json", "data")}
        body = options["json"] if "json" in options else json.loads(options["data"])
        return {**rest, "json": {**body, FIELD: scale_list(scales)}}


def unknown_adapter(name: str, known: list[str]) -> BadRequest:
    """Return the error for an adapter that a model does not have."""
    hint = f"the adapters are {', '.join(known)}" if known else "the model has no adapters"
    return BadRequest(f"there is no adapter {name[:_MOST]!r}", field=FIELD, hint=hint)


def wanted_adapters(body: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the adapters that the field ``lora`` of a body chooses, with their scales; None without the field.

    A scale that is left out is 1. Raises ``BadRequest``; ids are refused, as they are those of a process.
    """
    rows = body.get(FIELD)
    if rows is None:
        return None
    hint = 'write "lora": [{"name": "NAME", "scale": 1.0}]'
    if not isinstance(rows, list) or len(rows) > _MOST:
        raise BadRequest("lora is not a list of adapters", field=FIELD, hint=hint)
    found: dict[str, float] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(name := row.get("name"), str) or row.keys() - {"name", "scale"}:
            raise BadRequest("lora: an adapter is chosen by its name and a scale, not by an id", field=FIELD, hint=hint)
        scale = row.get("scale", 1.0)
        if name in found:
            raise BadRequest(f"lora names {name[:_MOST]!r} twice", field=FIELD, hint=hint)
        if not is_scale(scale) or scale < 0:
            raise BadRequest(f"lora: the scale of {name[:_MOST]!r} is no number from 0 on", field=FIELD, hint=hint)
        found[name] = float(scale)
    return found


def chosen(
    model: ServedModel, wanted: dict[str, float] | None, known: Mapping[str, float], client: Client
) -> ServedModel:
    """Return a model with the adapters that a request chooses instead of those of its name.

    ``known`` are the adapters of the declared model. The client must be allowed to use the model without adapters and
    with each of the chosen ones. Raises ``BadRequest``, ``Forbidden``.
    """
    if wanted is None:
        return model
    for name in wanted:
        if name not in known:
            raise unknown_adapter(name, sorted(known))
    base = model.base or model.name
    for name in (base, *(f"{base}:{name}" for name in wanted)):
        if not client.may_use(name):
            raise Forbidden(f"this key may not use {name}", hint="lora needs the model and each adapter of it")
    return model.replace(adapters=wanted)
