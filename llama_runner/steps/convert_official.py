"""Steps: convert with llama.cpp's official scripts: other architectures, projectors, LoRA adapters.

A script gets a directory with the model's name and links to exactly the files that the digest covers. It runs offline
in its own Python environment, and runs no code of the model without ``--trust-remote-code``.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.errors import SourceError, StepError
from llama_runner.core.source import Source
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, keyed_unless_default, noted, unkeyed
from llama_runner.engine.errors import ProgramFailed
from llama_runner.sources.local import LocalSafetensors
from llama_runner.steps.convert import CHECK, converted_place, projector_place
from llama_runner.steps.convert_adapter import adapter_estimate, adapter_place
from llama_runner.steps.official_converter_environment import CONVERT, run_official_script
from llama_runner.system.link_or_clone import link_or_copy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llama_runner.convert import Outtype
    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

CONVERT_ADAPTER = "convert_lora_to_gguf.py"
_PROGRESS = r"Writing: +(\d+)%"
_SAID = "official_driver: "


def needs_its_own_code_error(name: str, log: str) -> SourceError:
    """Return the error for a model whose conversion needs the Python code that it contains."""
    return SourceError(
        f"{name} cannot be converted without running its own Python code, which is not trusted\nfull log: {log}",
        hint="read its *.py files, and if you trust them, pass --trust-remote-code",
    )


def needs_network_error(name: str, tail: list[str], log: str) -> StepError:
    """Return the error for a script that tried to use the network."""
    lines = "".join(f"\n  {line}" for line in tail[-4:])
    return StepError(
        f"{name} lacks files that the script tried to download, and conversion uses no network{lines}\nfull log: {log}",
        hint="fetch all of the model's files into its directory",
    )


def out_of_memory_error(name: str, log: str) -> StepError:
    """Return the error for a script that ran out of memory."""
    return StepError(
        f"not enough memory to convert {name} with llama.cpp's own script\nfull log: {log}",
        hint="stop other programs, or convert where there is more memory; one layer has to fit in 32 bits",
    )


def not_converted_error(script: str, name: str, tail: list[str], log: str) -> StepError:
    """Return the error for a script that failed for another reason."""
    lines = "".join(f"\n  {line}" for line in tail[-6:])
    return StepError(f"{script} could not convert {name}{lines}\nfull log: {log}")


class OfficialConvert(Step):
    """The base model, as of ``Convert``, by convert_hf_to_gguf.py.

    The tree and the environment are noted, not keyed: a new llama.cpp does not cause a new conversion.
    """

    model: Node
    name: str
    """The directory's name, from which metadata is derived."""
    outtype: Outtype
    trust_remote_code: bool = False
    converter: str = "official"
    """Constant; makes the key different from that of ``Convert``."""
    pre_tokenizer: str | None = keyed_unless_default(None)
    """llama.cpp's name of the pre-tokenizer, as given by the user."""
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
        """See ``converted_place``; the same as for the native converter."""
        del key
        return converted_place(self.name, self.outtype, digests, places)

    def estimate(self) -> ResourceEstimate:
        """Return the size of the weights; twice that for 32 bits."""
        return ResourceEstimate(disk=self.weight_bytes * (2 if self.outtype == "f32" else 1))

    def run(self, workspace: Workspace) -> None:
        """Run the script on a directory of links to the model's files."""
        self._run_script(workspace, [])

    def _run_script(self, workspace: Workspace, more: Sequence[str]) -> None:
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415 - not on the warm path

        view = model_view(workspace, "model", self.model, self.name)
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
        workspace.add_facts(**read_header(workspace.target).facts(), check=CHECK)

    def _splits(self, directory: Path) -> tuple[str | None, bool]:
        """Return the pre-tokenizer, None if it is not recognised, and whether the user has given it."""
        from llama_runner.convert.official_script import check_pre_tokenizer, splits_by_structure  # noqa: PLC0415 - as above

        if self.pre_tokenizer is not None:
            check_pre_tokenizer(self.pre_tokenizer)
            return self.pre_tokenizer, True
        return splits_by_structure(directory), False


class OfficialProjector(OfficialConvert):
    """The multimodal projector (mmproj) of a model, by ``convert_hf_to_gguf.py --mmproj``."""

    kind: ClassVar[str] = "projector"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """See ``projector_place``; the same as for the native converter."""
        del key
        return projector_place(self.name, self.outtype, digests, places)

    def run(self, workspace: Workspace) -> None:
        """Run the script on a directory of links to the model's files."""
        self._run_script(workspace, ["--mmproj"])


class OfficialAdapter(Step):
    """A LoRA adapter as GGUF, by convert_lora_to_gguf.py. Only the small files of the base model are read."""

    adapter: Node
    base: Node
    name: str
    trust_remote_code: bool = False
    tree: Node | None = noted(None)
    environment: Node | None = noted(None)
    kind: ClassVar[str] = "adapter"
    resource: ClassVar = "compute"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """See ``adapter_place``."""
        return adapter_place(self.name, key, digests, places)

    def estimate(self) -> ResourceEstimate:
        """Return twice the size of the adapter, as it is written in 32 bits."""
        return adapter_estimate(self.adapter)

    def run(self, workspace: Workspace) -> None:
        """Run the script on directories of links to the files of both."""
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415 - not on the warm path

        view = model_view(workspace, "adapter", self.adapter, self.name)
        base = model_view(workspace, "base", self.base, "base")
        arguments = [str(view), "--base", str(base), "--outfile", str(workspace.target)]
        run(workspace, CONVERT_ADAPTER, arguments, name=self.name, trusted=self.trust_remote_code)
        workspace.add_facts(**read_header(workspace.target).facts())


def model_view(workspace: Workspace, field: str, node: Node, name: str) -> Path:
    """Make and return a directory with this name and links to the files of an input only."""
    directory = workspace.input(field)
    if isinstance(node, Source):
        assert isinstance(node, LocalSafetensors)
        files = node.files()
    else:
        files = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
    view = workspace.scratch / field / (PurePath(name).name or "model")
    for file, path in files.items():
        if file != STATE_FILE:
            (view / file).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path.resolve(), view / file)
    _write_settings_for_transformers_4(view / "tokenizer_config.json")
    return view


def _write_settings_for_transformers_4(link: Path) -> None:
    """Replace the link to a tokenizer_config.json that only transformers 5 can read; the script runs with version 4."""
    from llama_runner.convert.official_script import settings_for_transformers_4  # noqa: PLC0415 - not on the warm path

    if (settings := settings_for_transformers_4(link.parent)) is not None:
        link.unlink()
        link.write_text(json.dumps(settings), encoding="utf-8")


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
    """Run a script of the tree in the environment. The cause of a failure is found in the output of the driver."""
    said: set[str] = set()

    def on_line(line: str) -> None:
        if match := re.match(_PROGRESS, line):
            workspace.progress(int(match[1]), 100, "percent")
        if line.startswith(_SAID):
            said.add(line.removeprefix(_SAID).strip())

    try:
        run_official_script(
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
