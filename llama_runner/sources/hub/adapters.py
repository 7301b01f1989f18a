"""A LoRA adapter on the Hub at one commit: a PEFT directory, or a GGUF file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.errors import SourceError
from llama_runner.core.immutable_values import Value, field
from llama_runner.sources.hub.pins import open_pins
from llama_runner.sources.parse_lora_option import FILES, SETTINGS, WEIGHTS
from llama_runner.store import layout

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.sources.hub.parse_model_name import HubName
    from llama_runner.sources.hub.pins import Pin, RemoteFile
    from llama_runner.sources.hub.resolver import Resolver

_READ = (SETTINGS, WEIGHTS, "README.md", "config.json", "generation_config.json")
"""Files that a conversion reads; the card and the last two give metadata."""
_SHOWN = 6
_DEFAULT_REVISION = "main"


class HubAdapter(Value):
    """An adapter and the files of it that are fetched."""

    pin: Pin
    revision: str
    """As the user wrote it."""
    files: tuple[RemoteFile, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    """adapter_config.json; empty for a GGUF file."""
    kind: ClassVar[str] = "adapter"

    @property
    def is_gguf(self) -> bool:
        """Whether it is a GGUF file."""
        return self.files[0].name.lower().endswith(".gguf")

    @property
    def name(self) -> str:
        """Name for the converted metadata: that of a clone's directory."""
        return self.pin.repo.rpartition("/")[2]


def no_adapter_error(pin: Pin, wanted: str | None) -> SourceError:
    """Return the error for a repository without an adapter, or with several."""
    names = [file.name for file in pin.files if file.name.lower().endswith(".gguf")]
    where = f"{pin.repo} at {pin.commit[:12]}"
    if wanted is not None:
        return SourceError(f"{where} has no adapter {wanted}", hint="name a GGUF file of it: hf://ORG/NAME/FILE")
    if len(names) > 1:
        listed = ", ".join(names[:_SHOWN])
        return SourceError(f"{where} has several GGUF files: {listed}", hint=f"name one: hf://{pin.repo}/{names[0]}")
    return SourceError(
        f"{where} has no LoRA adapter: neither {WEIGHTS} with {SETTINGS} nor a GGUF file",
        hint="pickles are never loaded: adapter_model.bin has to be saved as safetensors",
    )


def resolve_adapter(resolver: Resolver, name: HubName) -> HubAdapter:
    """Return the adapter of a name; raises ``SourceError``. The Hub is asked for what is not known yet."""
    revision = name.revision or name.tag
    pin, revision = resolver.pin_of(name.repo, revision)
    by_name = {file.name: file for file in pin.files}
    if name.file is not None:
        if name.file not in by_name or not name.file.lower().endswith(".gguf"):
            raise no_adapter_error(pin, name.file)
        return HubAdapter(pin, revision, (by_name[name.file],))
    if SETTINGS in by_name and WEIGHTS in by_name:
        pin, settings = resolver.small_json(pin, by_name[SETTINGS])
        return HubAdapter(pin, revision, tuple(file for file in pin.files if file.name in _READ), settings)
    files = [file for file in pin.files if file.name.lower().endswith(".gguf")]
    if len(files) != 1:
        raise no_adapter_error(pin, None)
    return HubAdapter(pin, revision, (files[0],))


def downloaded_files(root: Path, name: HubName) -> list[Path]:
    """Return the files under a root that are of an adapter on the Hub, downloaded or converted. Asks nobody."""
    known = open_pins(root / layout.PRIVATE, lambda _: None).read(name.repo)
    pin = known.pin(name.revision or name.tag or _DEFAULT_REVISION)
    if pin is None:
        return []
    gguf, peft = (root / parent / pin.artifact_directory for parent in (layout.GGUF, layout.SAFETENSORS))
    if name.file is not None:
        found = [gguf / name.file.replace("/", "__")]  # as ``steps.download`` calls it
    else:
        found = [*gguf.glob("*.gguf"), *(peft / each for each in FILES)]
    return [path for path in found if path.is_file()]
