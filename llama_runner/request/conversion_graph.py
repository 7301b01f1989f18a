"""The steps that convert a model's weights: with our converter, or with llama.cpp's own scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.steps import download
from llama_runner.steps.convert import Convert
from llama_runner.steps.download import Download

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llama_runner.convert import Outtype
    from llama_runner.convert.adapter_formats import AdapterBase
    from llama_runner.core.converter_choice import ConverterChoice
    from llama_runner.core.step import Node
    from llama_runner.request.requested_adapters import RequestedAdapter
    from llama_runner.sources.hub.adapters import HubAdapter
    from llama_runner.steps.convert_adapter import ConvertAdapter
    from llama_runner.steps.convert_official import OfficialAdapter, OfficialConvert, OfficialProjector
    from llama_runner.steps.convert_projector import ConvertProjector
    from llama_runner.steps.download import Hub
    from llama_runner.steps.official_converter_environment import ConverterEnvironment

    Adapter = ConvertAdapter | OfficialAdapter | Download | LocalGguf
    """A LoRA adapter: to be converted, or a GGUF file where it lies."""


UNKNOWN = ""
"""The architecture of a GGUF file on the Hub that the Hub does not say."""


class BaseNeeded(UsageError):
    """An adapter is to be converted, and of its base there is only a GGUF."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"the adapter {name} is converted with the config.json of its base model, and here is only a GGUF",
            hint="name the base as safetensors, or convert the adapter beforehand and pass the GGUF file",
        )


class NotAnAdapter(UsageError):
    """The GGUF file holds something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} is no LoRA adapter", hint="a model is given without --lora")


class NoWeightsToSee(UsageError):
    """A projector is requested, and the model has no weights to make it from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"no projector can be made of {path}, a GGUF file",
            hint="name the model's safetensors, or pass a projector that there is: -- --mmproj FILE",
        )


class Conversion(Value):
    """All that decides how the weights of one model are converted."""

    model: Node
    name: str
    weight_bytes: int
    choice: ConverterChoice | None
    """None for a GGUF file, whose weights are not converted."""
    tree: Node
    pre_tokenizer: str | None
    trusted: bool
    adapter_base: AdapterBase | None = None
    """What is known of the model for adapters that are converted here."""
    base_architecture: object = None
    """llama.cpp's name for the architecture of a GGUF file that is not here yet."""

    @property
    def is_official(self) -> bool:
        """Whether llama.cpp's own script does it."""
        return self.choice is not None and self.choice.official

    def base(self, outtype: Outtype, *, keep: bool = True) -> Convert | OfficialConvert:
        """Return the step that makes the model in that type."""
        if not self.is_official:
            return Convert(
                self.model,
                self.name,
                outtype,
                self.weight_bytes,
                keep,
                self.pre_tokenizer,
                self._revision(),
            )
        from llama_runner.steps.convert_official import OfficialConvert  # noqa: PLC0415 - most models are converted by us

        return OfficialConvert(
            self.model,
            self.name,
            outtype,
            self.trusted,
            pre_tokenizer=self.pre_tokenizer,
            tree=self.tree,
            environment=self._environment(),
            weight_bytes=self.weight_bytes,
            keep=keep,
        )

    def _revision(self) -> int:
        revision = self.choice.revision if self.choice else 0
        if self.pre_tokenizer is None:
            return revision
        from llama_runner.convert.converter_corrections import revision_of_name  # noqa: PLC0415 - few name one

        return revision + revision_of_name(self.pre_tokenizer)

    def projector(self, outtype: Outtype) -> ConvertProjector | OfficialProjector:
        """Return the step that makes the projector; all files count that say how images are prepared."""
        model = self._with_every_file()
        if self.choice is not None and self.choice.native_projector:
            from llama_runner.steps.convert_projector import ConvertProjector  # noqa: PLC0415 - few are made here

            return ConvertProjector(model, self.name, outtype, self.weight_bytes)
        from llama_runner.steps.convert_official import OfficialProjector  # noqa: PLC0415 - as above

        environment = self._environment()
        return OfficialProjector(model, self.name, outtype, self.trusted, tree=self.tree, environment=environment)

    def _with_every_file(self) -> Node:
        """Return the model with all files counting that llama.cpp's own script may read."""
        return self.model.replace(converted_here=False) if isinstance(self.model, LocalSafetensors) else self.model

    def adapters(self, found: Iterable[RequestedAdapter]) -> tuple[Adapter, ...]:
        """Return LoRA adapters: files as they are, directories as steps that convert them."""
        return tuple(self._adapter(each) for each in found)

    def _adapter(self, requested: RequestedAdapter) -> Adapter:
        found = requested.source
        if isinstance(found, LocalGguf):
            if found.header.metadata.get("general.type") != "adapter":
                raise NotAnAdapter(found.path)
            return found
        node: Node = found if isinstance(found, LocalSafetensors) else _download(found, requested.hub)
        if isinstance(node, Download) and node.name:
            return node
        if requested.is_plain and not self.is_official:
            from llama_runner.convert.adapter_formats import ARCHITECTURES  # noqa: PLC0415 - few have any
            from llama_runner.steps.convert_adapter import ConvertAdapter  # noqa: PLC0415

            if (known := self.adapter_base) is not None:
                return ConvertAdapter(node, found.name, known=known.numbers)
            is_known = self.base_architecture in (UNKNOWN, *ARCHITECTURES.values())
            if is_known or (self.choice is not None and self.choice.architecture in ARCHITECTURES and self._is_fetched):
                return ConvertAdapter(node, found.name, base=self.model)
        if self.choice is None:
            raise BaseNeeded(found.name)
        from llama_runner.steps.convert_official import OfficialAdapter  # noqa: PLC0415 - few have any

        base, environment = self._with_every_file(), self._environment()
        return OfficialAdapter(node, base, found.name, self.trusted, tree=self.tree, environment=environment)

    @property
    def _is_fetched(self) -> bool:
        """Whether the model is fetched, so that its config.json is read when it is here."""
        return not isinstance(self.model, LocalSafetensors)

    def _environment(self) -> ConverterEnvironment:
        from llama_runner.steps.official_converter_environment import converter_environment  # noqa: PLC0415 - as above

        return converter_environment(self.tree)


def _download(found: HubAdapter, hub: Hub | None) -> Download:
    assert hub is not None, "an adapter on the Hub can be fetched"
    return download.adapter(found.files[0], hub) if found.is_gguf else download.safetensors(found.files, hub)


def is_made_here(what: object) -> bool:
    """Return whether a projector or an adapter is converted here, not fetched or taken as it lies."""
    return getattr(what, "kind", None) in ("projector", "adapter") and not isinstance(what, Download)
