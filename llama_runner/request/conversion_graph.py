"""The steps that convert a model's weights: with our converter, or with llama.cpp's own scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.steps.convert import Convert

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llama_runner.convert import Outtype
    from llama_runner.core.converter_choice import ConverterChoice
    from llama_runner.core.step import Node
    from llama_runner.steps.convert_official import OfficialAdapter, OfficialConvert, OfficialProjector
    from llama_runner.steps.python_environment import ConverterEnvironment

    Adapter = OfficialAdapter | LocalGguf
    """A LoRA adapter: to be converted, or a GGUF file where it lies."""


class BaseNeeded(UsageError):
    """An adapter is to be converted, and of its base there is only a GGUF."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"{path} is converted with the config.json of its base model, and here is only a GGUF",
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

    def projector(self, outtype: Outtype) -> OfficialProjector:
        """Return the step that makes what turns images or sound into tokens."""
        from llama_runner.steps.convert_official import OfficialProjector  # noqa: PLC0415 - few are made here

        model, environment = self._as_read_by_script(), self._environment()
        return OfficialProjector(model, self.name, outtype, self.trusted, tree=self.tree, environment=environment)

    def _as_read_by_script(self) -> Node:
        """Return the model with all files counting that llama.cpp's own script may read."""
        return self.model.replace(converted_here=False) if isinstance(self.model, LocalSafetensors) else self.model

    def adapters(self, found: Iterable[LocalGguf | LocalSafetensors]) -> tuple[Adapter, ...]:
        """Return LoRA adapters: files as they are, directories as steps that convert them."""
        return tuple(self._adapter(each) for each in found)

    def _adapter(self, found: LocalGguf | LocalSafetensors) -> Adapter:
        if isinstance(found, LocalGguf):
            if found.header.metadata.get("general.type") != "adapter":
                raise NotAnAdapter(found.path)
            return found
        if self.choice is None:
            raise BaseNeeded(found.path)
        from llama_runner.steps.convert_official import OfficialAdapter  # noqa: PLC0415 - few have any

        base, environment = self._as_read_by_script(), self._environment()
        return OfficialAdapter(found, base, found.name, self.trusted, tree=self.tree, environment=environment)

    def _environment(self) -> ConverterEnvironment:
        from llama_runner.steps.python_environment import converter_environment  # noqa: PLC0415 - as above

        return converter_environment(self.tree)


def is_made_here(what: object) -> bool:
    """Return whether a projector or an adapter is converted here, not fetched or taken as it lies."""
    if getattr(what, "kind", None) not in ("projector", "adapter"):
        return False
    from llama_runner.steps.convert_official import OfficialAdapter, OfficialProjector  # noqa: PLC0415 - as above

    return isinstance(what, (OfficialProjector, OfficialAdapter))
