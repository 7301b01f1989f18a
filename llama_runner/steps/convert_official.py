"""Convert with llama.cpp's own scripts: what is not converted here, the projectors of vision models, LoRA adapters.

A script sees a directory that is called as the model is, with links to exactly the files that the digest covers. It
runs offline in an environment of its own, and runs no code of the model's unless that was asked for.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.errors import SourceError, StepError
from llama_runner.core.record import STATE_FILE
from llama_runner.core.source import Source
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, keyed_unless_default, noted, unkeyed
from llama_runner.engine.errors import ProgramFailed
from llama_runner.sources.local import LocalSafetensors, artifact_directory
from llama_runner.steps.convert import converted_place
from llama_runner.steps.python_environment import CONVERT, call_script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llama_runner.convert import Outtype
    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.workspace import Workspace

CONVERT_ADAPTER = "convert_lora_to_gguf.py"
_PROGRESS = r"Writing: +(\d+)%"
_SAID = "official_driver: "


def needs_its_own_code_error(name: str, log: str) -> SourceError:
    """The model cannot be converted without running Python code that came with it."""
    return SourceError(
        f"{name} cannot be converted without running Python code of its own, which is not done unasked\n"
        f"full log: {log}",
        hint="read its *.py files, and if you trust them, pass --trust-remote-code",
    )


def needs_network_error(name: str, tail: list[str], log: str) -> StepError:
    """The script wanted something from the network, which it must not use."""
    lines = "".join(f"\n  {line}" for line in tail[-4:])
    return StepError(
        f"{name} lacks files that the script would have fetched, and conversion uses no network{lines}\n"
        f"full log: {log}",
        hint="fetch all of the model's files into its directory",
    )


def out_of_memory_error(name: str, log: str) -> StepError:
    """The script was killed, or said that there is no memory."""
    return StepError(
        f"the memory of this machine was not enough to convert {name} with llama.cpp's own script\nfull log: {log}",
        hint="stop other programs, or convert where there is more memory; one layer has to fit in 32 bits",
    )


def not_converted_error(script: str, name: str, tail: list[str], log: str) -> StepError:
    """The script gave up."""
    lines = "".join(f"\n  {line}" for line in tail[-6:])
    return StepError(f"{script} could not convert {name}{lines}\nfull log: {log}")


class OfficialConvert(Step):
    """The base model, as ``Convert`` makes it, by convert_hf_to_gguf.py.

    The tree and the environment are noted, not keyed: a new llama.cpp converts no model again.
    """

    model: Node
    name: str
    """What the metadata is derived from: the directory's name, which is not among the bytes."""
    outtype: Outtype
    trust_remote_code: bool = False
    converter: str = "official"
    """Always this: what tells its key from that of our own conversion."""
    pre_tokenizer: str | None = keyed_unless_default(None)
    """How the tokenizer splits text, as the user says it: llama.cpp's name for it."""
    tree: Node | None = noted(None)
    environment: Node | None = noted(None)
    weight_bytes: int = unkeyed(0)
    keep: bool = unkeyed(True)
    kind: ClassVar[str] = "convert"
    resource: ClassVar = "compute"

    @property
    def transient(self) -> bool:
        """See ``Step``."""
        return not self.keep

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Where our own conversion would put it: who converts is a parameter like others."""
        del key
        return converted_place(self.name, self.outtype, digests, places)

    def estimate(self) -> ResourceEstimate:
        """As for our own."""
        return ResourceEstimate(disk=self.weight_bytes * (2 if self.outtype == "f32" else 1))

    def run(self, workspace: Workspace) -> None:
        """Run the script over a view of the model."""
        self._run_script(workspace, [])

    def _run_script(self, workspace: Workspace, more: Sequence[str]) -> None:
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415 - not on the warm path

        view = view_of(workspace, "model", self.model, self.name)
        arguments = [str(view), "--outfile", str(workspace.target), "--outtype", self.outtype, *more]
        splits, is_said = self._splits(view)
        run(
            workspace,
            CONVERT,
            arguments,
            name=self.name,
            trusted=self.trust_remote_code,
            pre_tokenizer=splits,
            force=is_said,
        )
        workspace.add_facts(**read_header(workspace.target).facts())

    def _splits(self, directory: Path) -> tuple[str | None, bool]:
        """Return how the tokenizer splits text, and whether the user says so; None where its structure is unknown."""
        from llama_runner.convert.official_script import check_pre_tokenizer, splits_by_structure  # noqa: PLC0415 - as above

        if self.pre_tokenizer is not None:
            check_pre_tokenizer(self.pre_tokenizer)
            return self.pre_tokenizer, True
        return splits_by_structure(directory), False


class OfficialProjector(OfficialConvert):
    """What turns images or sound into tokens for a model, by ``convert_hf_to_gguf.py --mmproj``."""

    kind: ClassVar[str] = "projector"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Beside the model."""
        beside = super().place(key, digests, places)
        return None if beside is None else Place(beside.directory, f"mmproj-{beside.name}")

    def run(self, workspace: Workspace) -> None:
        """Run the script over a view of the model."""
        self._run_script(workspace, ["--mmproj"])


class OfficialAdapter(Step):
    """A LoRA adapter as GGUF, by convert_lora_to_gguf.py. Of the base only the small files are read."""

    adapter: LocalSafetensors
    base: Node
    name: str
    trust_remote_code: bool = False
    tree: Node | None = noted(None)
    environment: Node | None = noted(None)
    kind: ClassVar[str] = "adapter"
    resource: ClassVar = "compute"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """In a directory of its own, with digits of the key: the same adapter may serve two bases."""
        del places
        digest = digests["adapter"]
        return (
            None
            if key is None or digest is None
            else Place(artifact_directory(self.name, digest), f"lora-{key[3:11]}.gguf")
        )

    def estimate(self) -> ResourceEstimate:
        """Up to twice the adapter: it is written in 32 bits."""
        size = sum(path.stat().st_size for path in self.adapter.files().values() if path.is_file())
        return ResourceEstimate(disk=2 * size)

    def run(self, workspace: Workspace) -> None:
        """Run the script over views of both."""
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415 - not on the warm path

        view = view_of(workspace, "adapter", self.adapter, self.name)
        base = view_of(workspace, "base", self.base, "base")
        arguments = [str(view), "--base", str(base), "--outfile", str(workspace.target)]
        run(workspace, CONVERT_ADAPTER, arguments, name=self.name, trusted=self.trust_remote_code)
        workspace.add_facts(**read_header(workspace.target).facts())


def view_of(workspace: Workspace, field: str, node: Node, name: str) -> Path:
    """Return a directory of that name with links to the files of an input, and to nothing else beside them."""
    lies = workspace.input(field)
    if isinstance(node, Source):
        assert isinstance(node, LocalSafetensors)
        files = node.files()
    else:
        files = {str(path.relative_to(lies)): path for path in lies.rglob("*") if path.is_file()}
    view = workspace.scratch / field / (PurePath(name).name or "model")
    for file, path in files.items():
        if file != STATE_FILE:
            (view / file).parent.mkdir(parents=True, exist_ok=True)
            (view / file).symlink_to(path.resolve())
    return view


def run(
    workspace: Workspace,
    script: str,
    arguments: Sequence[str],
    *,
    name: str,
    trusted: bool = False,
    pre_tokenizer: str | None = None,
    force: bool = False,
) -> None:
    """Run a script of the tree in the environment; what went wrong is told from what it and the driver said."""
    said: set[str] = set()

    def on_line(line: str) -> None:
        if match := re.match(_PROGRESS, line):
            workspace.progress(int(match[1]), 100, "percent")
        if line.startswith(_SAID):
            said.add(line.removeprefix(_SAID).strip())

    try:
        call_script(
            workspace,
            workspace.input("environment"),
            script,
            arguments,
            trusted=trusted,
            pre_tokenizer=pre_tokenizer,
            force=force,
            on_line=on_line,
        )
    except ProgramFailed as error:
        if "code" in said:
            raise needs_its_own_code_error(name, error.log) from None
        if "memory" in said or error.status == -9:  # noqa: PLR2004 - SIGKILL, which the system's memory killer sends
            raise out_of_memory_error(name, error.log) from None
        tail = [line for line in error.tail if not line.startswith(_SAID)]
        if "network" in said:
            raise needs_network_error(name, tail, error.log) from None
        raise not_converted_error(script, name, tail, error.log) from None
