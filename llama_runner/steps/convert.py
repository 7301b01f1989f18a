"""Convert a directory of safetensors to GGUF."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import file_digest
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, keyed_unless_default, unkeyed
from llama_runner.sources.local import artifact_directory
from llama_runner.store.layout import GGUF
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert import Outtype
    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.workspace import Workspace

_NAMED = 3


class Convert(Step):
    """The base model: every weight in 16 bits (or 32), for serving or for quantizing."""

    model: Node
    name: str
    """What the metadata is derived from: the directory's name, which is not among the bytes."""
    outtype: Outtype
    weight_bytes: int = unkeyed(0)
    keep: bool = unkeyed(True)
    pre_tokenizer: str | None = keyed_unless_default(None)
    """How the tokenizer splits text, where it is not recognised: llama.cpp's name for it."""
    revision: int = keyed_unless_default(0)
    """How many corrections of the output concern this model; see ``convert.revisions``."""
    kind: ClassVar[str] = "convert"

    @property
    def transient(self) -> bool:
        """See ``Step``."""
        return not self.keep

    @property
    def tools(self) -> dict[str, object]:
        """Our own converter."""
        return {"converter": {"name": "llama_runner", "version": __version__}}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """See ``converted_place``."""
        del key
        return converted_place(self.name, self.outtype, digests, places)

    def estimate(self) -> ResourceEstimate:
        """About as much as the weights take now, and twice that where 16 bits become 32."""
        return ResourceEstimate(disk=self.weight_bytes * (2 if self.outtype == "f32" else 1))

    def run(self, workspace: Workspace) -> None:
        """Stream the weights from the source into the file."""
        from llama_runner.convert import convert  # noqa: PLC0415 - not on the warm path
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415

        target = workspace.target
        converted = convert(
            workspace.input("model"),
            target,
            name=self.name,
            outtype=self.outtype,
            pre_tokenizer=self.pre_tokenizer,
            on_progress=lambda done, total: workspace.progress(done, total, "bytes"),
            cancelled=workspace.is_cancelled,
        )
        workspace.add_digest(target.name, file_digest(converted.sha256))
        workspace.add_facts(**read_header(target).facts())
        if before := converted.quantized_before:
            workspace.add_facts(quantized_before=before)
            workspace.notice(
                "quantized_before", f"the weights were quantized before ({before}); what was lost stays lost"
            )
        for difference in converted.differences:
            workspace.notice("tokenizer_differs", difference)
        if converted.not_finite:
            workspace.add_facts(not_finite=dict(converted.not_finite))
            workspace.warn("not_finite", _broken(converted.not_finite))


def converted_place(
    name: str, outtype: Outtype, digests: Mapping[str, Digest | None], places: Mapping[str, Place]
) -> Place | None:
    """``model.gguf`` in the directory of the source, with the type in its name when it was asked for.

    ``model.q8_0.gguf`` is what llama-quantize makes, of a base that is there too.
    """
    types = {"auto": "", "q8_0": ".q8_0-converted"}
    file = f"model{types.get(outtype, f'.{outtype}')}.gguf"
    if fetched := places.get("model"):
        return Place(f"{GGUF}/{fetched.directory.rpartition('/')[2]}", file)
    digest = digests["model"]
    return None if digest is None else Place(artifact_directory(name, digest), file)


def _broken(not_finite: Mapping[str, int]) -> str:
    """Return which tensors have lost numbers, the worst first."""
    worst = sorted(not_finite, key=lambda name: -not_finite[name])
    named = ", ".join(f"{name} ({not_finite[name]})" for name in worst[:_NAMED])
    more = f" and {len(worst) - _NAMED} more tensors" if len(worst) > _NAMED else ""
    return (
        f"{sum(not_finite.values())} weights are infinite or no numbers in f16: {named}{more}; "
        "those that are merely too large for it fit into --outtype bf16"
    )
