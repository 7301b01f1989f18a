"""Step: convert the projector (mmproj) of a vision model with the native converter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.step import Place, ResourceEstimate
from llama_runner.steps.convert import Convert, projector_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

_LARGEST = 2 << 30
"""Bytes of the largest encoders of images, in 16 bits."""


class ConvertProjector(Convert):
    """The image encoder of a vision model, and the layers that turn its output into embeddings of the text model."""

    kind: ClassVar[str] = "projector"
    version: ClassVar[int] = 1

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """See ``projector_place``."""
        del key
        return projector_place(self.name, self.outtype, digests, places)

    def estimate(self) -> ResourceEstimate:
        """Return the size of the model, which has more weights, or that of a large projector."""
        return ResourceEstimate(disk=min(super().estimate().disk, _LARGEST))

    def run(self, workspace: Workspace) -> None:
        """Convert the weights in chunks from the source into the file."""
        self._convert(workspace, projector=True)
