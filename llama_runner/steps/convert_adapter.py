"""Step: convert a LoRA adapter of PEFT to GGUF with the native converter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.step import Node, Place, ResourceEstimate, Step
from llama_runner.sources.local import LocalSafetensors, artifact_directory
from llama_runner.steps.convert import NATIVE
from llama_runner.store.layout import GGUF

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.adapter_formats import AdapterBase
    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace


_NOT_KEPT = {
    "use_rslora": "give the square root of the rank as the scale",
    "alpha_pattern": "it takes lora_alpha for every matrix",
}


class ConvertAdapter(Step):
    """A LoRA adapter as GGUF, in 32 bits."""

    adapter: Node
    name: str
    """The directory's name, from which metadata is derived."""
    base: Node | None = None
    """The base model, where it is not known before it is here."""
    known: tuple[str, int, int, int] | None = None
    """Fields of ``AdapterBase``, where it is known."""
    kind: ClassVar[str] = "adapter"

    @property
    def tools(self) -> dict[str, object]:
        """The native converter and its version."""
        return {"converter": NATIVE}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """See ``adapter_place``."""
        return adapter_place(self.name, key, digests, places)

    def estimate(self) -> ResourceEstimate:
        """Return twice the size of the adapter, as it is written in 32 bits."""
        return adapter_estimate(self.adapter)

    def run(self, workspace: Workspace) -> None:
        """Convert the adapter."""
        from llama_runner.convert.adapter_formats import SETTINGS  # noqa: PLC0415 - not on the warm path
        from llama_runner.convert.lora_adapter import convert_adapter  # noqa: PLC0415
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415
        from llama_runner.system.files import read_json  # noqa: PLC0415

        directory, target = workspace.input("adapter"), workspace.target
        digest = convert_adapter(
            directory,
            target,
            name=self.name,
            base=self._base(workspace),
            new_hasher=workspace.new_hasher,
            on_progress=lambda done, total: workspace.progress(done, total, "bytes"),
            cancelled=workspace.is_cancelled,
        )
        settings = read_json(directory / SETTINGS)
        for name, text in _NOT_KEPT.items():
            if settings.get(name):
                workspace.notice("adapter_scale", f"{self.name}: llama.cpp does not know {name}; {text}")
        workspace.add_digest(target.name, digest)
        workspace.add_facts(**read_header(target).facts())

    def _base(self, workspace: Workspace) -> AdapterBase:
        from llama_runner.convert.adapter_formats import AdapterBase, base_of_header, read_base  # noqa: PLC0415 - as above
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415

        if self.known is not None:
            return AdapterBase(*self.known)
        path = workspace.input("base")
        files = [path] if path.is_file() else sorted(path.glob("*.gguf"))
        return base_of_header(read_header(files[0]).metadata) if files else read_base(path)


def adapter_place(
    name: str, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]
) -> Place | None:
    """Return a place with digits of the key, as one adapter may be converted for several base models."""
    digest = digests["adapter"]
    if key is None or digest is None:
        return None
    fetched = places.get("adapter")
    beside = None if fetched is None else f"{GGUF}/{fetched.directory.rpartition('/')[2]}"
    return Place(beside or artifact_directory(name, digest), f"lora-{key[3:11]}.gguf")


def adapter_estimate(adapter: Node) -> ResourceEstimate:
    """Return twice the size of an adapter."""
    if isinstance(adapter, Step):
        return ResourceEstimate(disk=2 * adapter.estimate().disk)
    files = adapter.files().values() if isinstance(adapter, LocalSafetensors) else ()
    return ResourceEstimate(disk=2 * sum(path.stat().st_size for path in files if path.is_file()))
