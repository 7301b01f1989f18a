"""What the tables of a configuration file become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value, field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.sources.parse_lora_option import AdapterOption


class Settings(Value):
    """What models, presets and ``[defaults]`` may set. None: not set."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Values of options of ``run``, by ``Option.name``."""
    llama: Mapping[str, Any] = field(default_factory=dict)
    """Options of llama-server that are not options of ours, without dashes in front."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Defaults of sampling, named as in requests to llama-server."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template."""
    preset: str | None = None
    system: str | None = None
    """The system prompt of requests without one."""
    pin: bool | None = None
    ttl: float | None = None
    """Seconds without a request until the model is unloaded; 0: never."""
    preload: bool | None = None
    hidden: bool | None = None
    sessions: bool | Mapping[str, Any] | None = None
    """Whether sessions are kept, or the keys of ``known_keys.SESSIONS`` that are set; paths are texts."""
    max_ctx_size: int | None = None
    """Tokens that the context grows to when a client asks for more than it has."""
    fallback: tuple[str, ...] | None = None


class Adapter(Value):
    """A LoRA adapter of a model."""

    name: str
    path: Path | None = None
    source: str | None = None
    """What ``--lora`` takes; instead of ``path``."""
    scale: float = 1.0

    @property
    def where(self) -> str:
        """The path, or the name on the Hub."""
        return str(self.path if self.path is not None else self.source)

    @property
    def option(self) -> AdapterOption:
        """The adapter as ``--lora`` names it."""
        from llama_runner.sources.parse_lora_option import AdapterOption  # noqa: PLC0415 - few models have any

        return AdapterOption(self.name, self.where, self.scale, is_named=True)


class Variant(Value):
    """Another way to ask a model: it shares the process of the model."""

    name: str
    aliases: tuple[str, ...] = ()
    hidden: bool | None = None
    system: str | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)


class Model(Settings):
    """A model that the file declares."""

    name: str = ""
    source: str | None = None
    """What ``run`` takes as MODEL; None where an option such as ``gguf_path`` names it."""
    aliases: tuple[str, ...] = ()
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)
    path: Path = field(default_factory=Path)
    """The file that declares it."""


class Memory(Value):
    """Memory for models: bytes, or a part such as ``80%``."""

    host: int | str | None = None
    device: int | str | None = None
    prompt_cache: int | None = None


class Gateway(Value):
    """The table ``[gateway]``."""

    listen: tuple[str, ...] | None = None
    allow_pull: tuple[str, ...] = ()
    max_pull: int | None = None
    store: bool = False
    api_key_file: Path | None = None
    limits_file: Path | None = None
    insecure: bool = False
    fetch_images: bool = False
    log_prompts: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    queue: int | None = None
    max_wait: float | None = None
    memory: Memory = field(default_factory=Memory)


class StoreTable(Value):
    """The table ``[store]``."""

    remote_store: str | None = None
    remote_push: bool = False
    older_than: float | None = None
    max_size: int | None = None
