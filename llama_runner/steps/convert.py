"""Step: convert a directory of safetensors to GGUF with the native converter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.step import Node, Place, ResourceEstimate, Step, keyed_unless_default, unkeyed
from llama_runner.sources.local import artifact_directory
from llama_runner.store.layout import GGUF
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert import ConversionResult, Outtype
    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

CHECK = 1
"""A fact of a conversion: that it is followed by a check. Records of versions that made none lack it."""
NATIVE = {"name": "llama_runner", "version": __version__}
"""The native converter, as records name it."""
_NAMED = 3


class Convert(Step):
    """The base model: every weight in 16 bits (or 32), for serving or for quantizing."""

    model: Node
    name: str
    """The directory's name, from which metadata is derived."""
    outtype: Outtype
    weight_bytes: int = unkeyed(0)
    keep: bool = unkeyed(True)
    pre_tokenizer: str | None = keyed_unless_default(None)
    """llama.cpp's name of the pre-tokenizer, if the tokenizer's is not recognised."""
    revision: int = keyed_unless_default(0)
    """Number of corrections of the converter that concern this model; see ``convert.converter_corrections``."""
    kind: ClassVar[str] = "convert"

    @property
    def transient(self) -> bool:
        """See ``Step``."""
        return not self.keep

    @property
    def tools(self) -> dict[str, object]:
        """The native converter and its version."""
        return {"converter": NATIVE}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """See ``converted_place``."""
        del key
        return converted_place(self.name, self.outtype, digests, places)

    def estimate(self) -> ResourceEstimate:
        """Return the size of the weights; twice that for 32 bits."""
        return ResourceEstimate(disk=self.weight_bytes * (2 if self.outtype == "f32" else 1))

    def run(self, workspace: Workspace) -> None:
        """Convert the weights in chunks from the source into the file."""
        converted = self._convert(workspace)
        workspace.add_facts(check=CHECK)
        if before := converted.quantized_before:
            workspace.add_facts(quantized_before=before)
            workspace.notice(
                "quantized_before", f"the weights were quantized before ({before}); that loss of precision remains"
            )
        for difference in converted.differences:
            workspace.notice("tokenizer_differs", difference)

    def _convert(self, workspace: Workspace, *, projector: bool = False) -> ConversionResult:
        """Write the file, and record its digest and what its header says."""
        from llama_runner.convert import convert  # noqa: PLC0415 - not on the warm path
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415

        target = workspace.target
        converted = convert(
            workspace.input("model"),
            target,
            name=self.name,
            outtype=self.outtype,
            pre_tokenizer=self.pre_tokenizer,
            projector=projector,
            new_hasher=workspace.new_hasher,
            on_progress=lambda done, total: workspace.progress(done, total, "bytes"),
            cancelled=workspace.is_cancelled,
        )
        workspace.add_digest(target.name, converted.digest)
        workspace.add_facts(**read_header(target).facts())
        if not_finite := converted.not_finite:
            workspace.add_facts(not_finite=dict(not_finite))
            workspace.warn("not_finite", _not_finite_text(not_finite))
        return converted

    def check_fetched(self, workspace: Workspace) -> None:
        """Read the header of the file, so that its facts are those of the bytes."""
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415 - not on the warm path

        workspace.add_facts(**read_header(workspace.target).facts())


def converted_place(
    name: str, outtype: Outtype, digests: Mapping[str, Digest | None], places: Mapping[str, Place]
) -> Place | None:
    """Return the place ``model.gguf`` in the directory of the source, with the type in its name unless it is ``auto``.

    ``model.q8_0.gguf`` is the name of the output of llama-quantize.
    """
    types = {"auto": "", "q8_0": ".q8_0-converted"}
    file = f"model{types.get(outtype, f'.{outtype}')}.gguf"
    if fetched := places.get("model"):
        return Place(f"{GGUF}/{fetched.directory.rpartition('/')[2]}", file)
    digest = digests["model"]
    return None if digest is None else Place(artifact_directory(name, digest), file)


def projector_place(
    name: str, outtype: Outtype, digests: Mapping[str, Digest | None], places: Mapping[str, Place]
) -> Place | None:
    """Return the place of the projector in the directory of its model."""
    beside = converted_place(name, outtype, digests, places)
    return None if beside is None else Place(beside.directory, f"mmproj-{beside.name}")


def _not_finite_text(not_finite: Mapping[str, int]) -> str:
    """Return a clause that names the tensors with infinities or NaNs, the most affected first."""
    worst = sorted(not_finite, key=lambda name: -not_finite[name])
    named = ", ".join(f"{name} ({not_finite[name]})" for name in worst[:_NAMED])
    more = f" and {len(worst) - _NAMED} more tensors" if len(worst) > _NAMED else ""
    return (
        f"{sum(not_finite.values())} weights are infinite or NaN in f16: {named}{more}; "
        "weights that are only too large for f16 fit into --outtype bf16"
    )
