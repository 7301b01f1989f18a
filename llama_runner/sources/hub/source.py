"""A model on the Hub at one commit: what a name was resolved to, as the pipeline takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.value import Value

if TYPE_CHECKING:
    from llama_runner.core.converter import ConverterChoice
    from llama_runner.sources.checkpoint_quantization import Stored
    from llama_runner.sources.hub.file_selection import Choice
    from llama_runner.sources.hub.pins import Pin, RemoteFile


class HubGguf(Value):
    """GGUF files at one commit: the model, and perhaps its projector."""

    pin: Pin
    revision: str
    """As the user named it."""
    choice: Choice
    kind: ClassVar[str] = "gguf"

    @property
    def name(self) -> str:
        """What the API calls the model."""
        return f"{self.pin.repo}:{self.choice.model.quantization}".rstrip(":")


class HubSafetensors(Value):
    """A repository whose weights are converted here."""

    pin: Pin
    revision: str
    files: tuple[RemoteFile, ...]
    """Exactly what conversion reads."""
    quantization: str | None
    """As asked for in the name or by option."""
    choice: ConverterChoice
    """Who converts them."""
    context_length: int | None = None
    stored: Stored | None = None
    """How the weights are quantized already, if they are."""
    kind: ClassVar[str] = "safetensors"

    @property
    def name(self) -> str:
        """What the converted metadata is made from: the name that a clone of the repository would have."""
        return self.pin.repo.rpartition("/")[2]


HubSource = HubGguf | HubSafetensors
