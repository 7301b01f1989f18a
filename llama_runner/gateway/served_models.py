"""The names that the gateway serves: declared models, aliases, variants and hidden models. Pure.

One declared model is one process. Several names may lead to it: its own, its aliases, its variants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.adapter_scales import MIX
from llama_runner.core.immutable_values import Value, field
from llama_runner.gateway.errors import UnknownModel
from llama_runner.gateway.ollama_names import find_name, plain_name
from llama_runner.serving.llama_server.launch_spec import ServerOptions

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.gateway.sessions.session_settings import SessionSettings


class DeclaredModel(Value):
    """A model of the configuration: what is launched, and for how long. One process serves it."""

    name: str
    source: str | Path | None
    """What ``Runner.prepare`` takes as its model."""
    keywords: dict[str, Any] = field(default_factory=dict)
    """The keywords of ``Runner.prepare``."""
    server: ServerOptions = field(default_factory=ServerOptions)
    """Options of llama-server; host, port and key are the gateway's."""
    pin: bool = False
    """Never evicted and never stopped because it is idle."""
    ttl: float | None = None
    """Seconds after the end of the last request after which it is stopped. None: the gateway's default."""
    preload: bool = False
    sessions: SessionSettings | None = None
    """How its sessions are kept; None: they are not."""
    adapters: dict[str, float] = field(default_factory=dict)
    """The adapters that requests may choose, each with the scale that its name stands for."""
    lora: dict[str, str] = field(default_factory=dict)
    """Of each of these, what ``--lora`` takes: it is loaded and not applied."""
    versions: tuple[Any, ...] = ()
    """What tells whether files of adapters were replaced."""
    max_ctx_size: int | None = None
    """The context that it is started with again when a client wants more than it has, in tokens; None: never."""

    @property
    def all_keywords(self) -> dict[str, Any]:
        """Return the keywords of ``Runner.prepare`` with the adapters that requests may choose."""
        lora = (*self.keywords.get("lora", ()), *self.lora.values())
        return {**self.keywords, "lora": lora} if lora else self.keywords


class ServedModel(Value):
    """One name that clients may use, and what a request under this name gets."""

    name: str
    declared: str
    """The declared model whose process answers."""
    hidden: bool = False
    """Answers under this name, and is in no list."""
    is_alias: bool = False
    sampling: dict[str, Any] = field(default_factory=dict)
    """Members of the request body that a request gets where it does not set them itself."""
    template: dict[str, Any] = field(default_factory=dict)
    """``chat_template_kwargs``, likewise."""
    system: str | None = None
    """The system prompt of a chat that has none."""
    adapters: dict[str, float] = field(default_factory=dict)
    """The adapters of the declared model that are applied, with their scales; the others are not."""
    base: str = ""
    """The name of the model without the adapters; empty for a model without any."""
    fallbacks: tuple[str, ...] = ()
    """Names that are tried in this order when this model cannot be loaded."""


class ModelFacts(Value):
    """What is known of the file of a declared model. Available once the model was prepared."""

    file: Path
    """The GGUF file, of several the first."""
    digest: str
    """Digest of the file, ``sha256:…`` or ``b3:…``; where it was not hashed, of names, sizes and times of its files."""
    bytes: int
    modified_at: float
    """Seconds since the epoch."""
    architecture: str
    name: str | None
    """``general.name`` of the file."""
    parameters: int | None
    """The number of parameters."""
    quantization: str | None
    context_length: int | None
    """Tokens that the model was trained for."""
    template: str | None
    """The chat template, as Jinja text."""
    metadata: dict[str, Any]
    """Key-value pairs of the GGUF header; an array is ``{"array": LENGTH}``."""
    kind: str = "text"
    """``text``, ``embeddings`` or ``rerank``."""
    projector: Path | None = None
    capabilities: tuple[str, ...] = ()
    """Ollama's words: completion, tools, insert, vision, embedding, thinking, audio."""


class RunningModel(Value):
    """A declared model that is loaded, loads or stops, or that requests wait for."""

    name: str
    """Of the declared model."""
    state: str
    """``preparing``, ``loading``, ``ready``, ``stopping``, or ``waiting`` for memory or the end of a pause."""
    pinned: bool
    in_flight: int
    queued: int
    loaded_at: float | None = None
    """Seconds since the epoch."""
    expires_at: float | None = None
    """When it is stopped if no request comes, in seconds since the epoch; None: never."""
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes by place: ``Host``, and each device."""
    context: int | None = None
    """Tokens of the context that it was started with."""
    pid: int | None = None
    load_seconds: float | None = None


class Catalogue(Value):
    """All names that are served."""

    declared: dict[str, DeclaredModel] = field(default_factory=dict)
    served: dict[str, ServedModel] = field(default_factory=dict)

    def find(self, name: str) -> ServedModel:
        """Return the model of a name; ``UnknownModel``. ``NAME``, ``NAME:latest`` and ``hf.co/NAME`` are the same.

        ``NAME:a+b`` is a model with two of its adapters.
        """
        if (found := find_name(name, self.served)) is not None:
            return self.served[found]
        if (mixed := self._with_adapters(plain_name(name))) is not None:
            return mixed
        raise UnknownModel(name, [model.name for model in self.listed()])

    def counted_name(self, name: str) -> str:
        """Return the name that metrics count a request under: of a model with several adapters, that without them.

        Empty for a name that is not served.
        """
        if name in self.served:
            return name
        mixed = self._with_adapters(name)
        return "" if mixed is None else mixed.base

    def _with_adapters(self, name: str) -> ServedModel | None:
        """Return the model that ``NAME:a+b`` means; None if it has no such adapters, or has adapters by its name."""
        base, _, mix = name.rpartition(":")
        found = find_name(base, self.served) if base else None
        if found is None or (model := self.served[found]).adapters:
            return None
        known = self.declared[model.declared].adapters
        names = mix.split(MIX)
        if not set(names) <= known.keys() or len(set(names)) < len(names):
            return None
        return model.replace(name=f"{found}:{mix}", base=found, adapters={each: known[each] for each in names})

    def listed(self) -> list[ServedModel]:
        """Return the models that are shown to clients, in the order of the configuration."""
        return [model for model in self.served.values() if not model.hidden]

    def with_model(self, model: DeclaredModel, *names: ServedModel) -> Catalogue:
        """Return a catalogue with one more declared model; by default it is served under its own name."""
        served = {each.name: each for each in names or (ServedModel(name=model.name, declared=model.name),)}
        return Catalogue({**self.declared, model.name: model}, {**self.served, **served})

    def with_name(self, model: ServedModel) -> Catalogue:
        """Return a catalogue with one more name for a declared model, or with another meaning of a name."""
        return self.replace(served={**self.served, model.name: model})

    def without(self, name: str) -> Catalogue:
        """Return a catalogue without a name, and without the declared model that no name leads to any more."""
        served = {key: value for key, value in self.served.items() if key != name}
        used = {model.declared for model in served.values()}
        return Catalogue({key: value for key, value in self.declared.items() if key in used}, served)
