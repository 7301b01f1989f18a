"""A model on the Hub at one commit: the result of resolving a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from llama_runner.core.converter_choice import ConverterChoice
    from llama_runner.sources.checkpoint_quantization import CheckpointQuantization
    from llama_runner.sources.hub.file_selection import FileSelection
    from llama_runner.sources.hub.pins import Pin, RemoteFile


class HubGguf(Value):
    """GGUF files at one commit: the model and optionally its projector."""

    pin: Pin
    revision: str
    """As the user wrote it."""
    selection: FileSelection
    kind: ClassVar[str] = "gguf"

    @property
    def name(self) -> str:
        """The model's name in the server's API."""
        return f"{self.pin.repo}:{self.selection.model.quantization}".rstrip(":")


class HubSafetensors(Value):
    """Repository of safetensors to convert."""

    pin: Pin
    revision: str
    files: tuple[RemoteFile, ...]
    """The files that conversion reads."""
    quantization: str | None
    """As given in the name or by option."""
    choice: ConverterChoice
    """The converter: built-in or official."""
    context_length: int | None = None
    checkpoint_quantization: CheckpointQuantization | None = None
    """Quantization of the stored weights; None if they are not quantized."""
    kind: ClassVar[str] = "safetensors"

    @property
    def name(self) -> str:
        """Name for the converted metadata: that of a clone's directory."""
        return self.pin.repo.rpartition("/")[2]


HubSource = HubGguf | HubSafetensors
