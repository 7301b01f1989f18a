"""Steps: download patches, such as that of a pull request, and apply them to a source tree."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.digest import short_hash
from llama_runner.core.errors import DownloadError, StepError, ToolError
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, unkeyed
from llama_runner.core.url_redaction import public_url
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp.source_tree import SourceTree
from llama_runner.steps.git_checkout import TREE_BYTES
from llama_runner.store.layout import PATCHES, SOURCES, safe_name
from llama_runner.system.files import read_bounded
from llama_runner.system.find_programs import find_program
from llama_runner.system.git import environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

_LARGEST = 16 << 20
_CHANGE = rb"^(\+\+\+ |GIT binary patch|rename to |new mode |(new|deleted) file mode )"
"""Beginning of a line that names a change. git and patch may accept a text without any."""


def patch_does_not_apply_error(patch: str, file: str, line: int | None, said: list[str], log: str | None) -> StepError:
    """Return the error for a patch that does not apply."""
    where = f" to {file}" if file else ""
    where += f" (the hunk at line {line})" if line is not None else ""
    lines = "".join(f"\n  {each}" for each in said[-4:])
    return StepError(
        f"patch {patch} does not apply{where}{lines}" + (f"\nfull log: {log}" if log else ""),
        hint="it was made for another state of llama.cpp; build that one with --source, or get a newer patch",
    )


def patch_not_fetched_error(url: str, why: str, hint: str | None = None) -> DownloadError:
    """Return the error for a patch that cannot be downloaded."""
    url = public_url(url)
    return DownloadError(
        f"cannot fetch the patch {url}: {why}",
        hint=hint or "check the URL and the network; or give the patch as a file",
    )


class FetchPatch(Step):
    """A patch by its URL. It is downloaded once; its digest is part of the keys of builds with it."""

    url: str
    """URL without credentials; keyed and recorded."""
    address: str = unkeyed("")
    """URL with credentials; empty if there are none."""
    kind: ClassVar[str] = "fetch_patch"
    resource: ClassVar = "network"
    sharing: ClassVar = "record"

    @property
    def source(self) -> dict[str, object]:
        """The URL."""
        return {"kind": "url", "ref": self.url}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return a place with the patch's name and digits of the key."""
        del digests, places
        if key is None:
            return None
        name = self.url.partition("?")[0].rstrip("/").rpartition("/")[2]
        return Place(PATCHES, f"{safe_name(name).removesuffix('.patch')}-{short_hash(key)}.patch")

    def run(self, workspace: Workspace) -> None:
        """Download the patch. Raises ``DownloadError``, also if it is not a patch, such as a login page."""
        from llama_runner.system.http_client import HttpFailed, get  # noqa: PLC0415 - not on the warm path

        content = bytearray()
        try:
            with get(self.address or self.url) as response:
                if not 200 <= response.status < 300:  # noqa: PLR2004
                    raise patch_not_fetched_error(self.url, f"the server answers {response.status}")
                for block in response.blocks():
                    workspace.check_cancelled()
                    content += block
                    if len(content) > _LARGEST:
                        raise patch_not_fetched_error(self.url, f"it is larger than {_LARGEST >> 20} MiB")
        except HttpFailed as error:
            raise patch_not_fetched_error(self.url, error.why, error.hint) from None
        if not re.search(_CHANGE, content, re.MULTILINE):
            raise patch_not_fetched_error(self.url, "it is not a patch")
        workspace.target.write_bytes(content)


def fetch_patch(url: str) -> FetchPatch:
    """Return the step that downloads a patch; credentials in the URL are neither keyed nor recorded."""
    public = public_url(url)
    return FetchPatch(public, "" if public == url else url)


class PatchedTree(Step):
    """A copy of a source tree with patches applied, one after the other."""

    tree: Node
    patches: tuple[Node, ...]
    build: int = unkeyed(0)
    kind: ClassVar[str] = "patch"
    sharing: ClassVar = "record"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return a place with digits of the key."""
        del digests, places
        return None if key is None else Place(f"{SOURCES}/llama.cpp-b{self.build}-{short_hash(key)}")

    def estimate(self) -> ResourceEstimate:
        """Return the size of the tree."""
        return ResourceEstimate(disk=TREE_BYTES // 2)

    def run(self, workspace: Workspace) -> None:
        """Copy the tree, then apply the patches. Hard links are not used, as a patch would change the original too."""
        names = list(self.tree.files()) if isinstance(self.tree, SourceTree) else None
        _copy_tree(workspace.input("tree"), workspace.out, names, workspace)
        for index, _ in enumerate(self.patches):
            _apply_patch(workspace.input(f"patches.{index}"), workspace)


def _copy_tree(source: Path, target: Path, names: list[str] | None, workspace: Workspace) -> None:
    import shutil  # noqa: PLC0415 - not on the warm path

    if names is None:
        # the .git file of a submodule would make git search for a repository
        ignored = shutil.ignore_patterns(STATE_FILE, ".git")
        shutil.copytree(source, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)
        return
    for index, name in enumerate(names):
        workspace.check_cancelled()
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)
        workspace.progress(index + 1, len(names), "files")


def _apply_patch(patch: Path, workspace: Workspace) -> None:
    if not re.search(_CHANGE, read_bounded(patch, _LARGEST), re.MULTILINE):
        raise patch_does_not_apply_error(patch.name, "", None, ["it has no changes"], None)
    out = workspace.out.resolve()
    if git := find_program("git"):
        # if the store is inside a git repository, git would look for the files at the top of that one
        alone = {"GIT_CEILING_DIRECTORIES": str(out.parent), "GIT_CONFIG_GLOBAL": os.devnull}
        words: list[str | Path] = [git, "apply", "-p1", "--whitespace=nowarn", patch]
        env = {**environment(), **alone, "GIT_CONFIG_NOSYSTEM": "1"}
    elif program := find_program("patch"):
        words = [program, "-p1", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "-r", "-", "-i", patch]
        env = environment()
    else:
        raise ToolError(
            "applying a patch needs git or patch, not found here",
            hint="sudo apt-get install -y git   (macOS: xcode-select --install; Fedora: sudo dnf install git)",
        )
    said: list[str] = []
    try:
        workspace.run_program(words, env=env, cwd=out, on_line=lambda line: said.append(line.strip()))
    except ProgramFailed as error:
        raise patch_does_not_apply_error(patch.name, *_failed_hunk(said), said, workspace.log_name) from error


def _failed_hunk(said: list[str]) -> tuple[str, int | None]:
    """Return file and line of the failed hunk, from the output of git or patch."""
    file, line = "", None
    for each in said:
        if match := re.match(r"error: patch failed: (.+):(\d+)$", each):
            return match[1], int(match[2])
        if match := re.match(r"patching file '?(.+?)'?$", each):
            file = match[1]
        elif match := re.match(r"Hunk #\d+ FAILED at (\d+)", each):
            return file, int(match[1])
        elif each.startswith("No file to patch"):
            return file, None
        elif match := re.match(r"error: (.+): (No such file or directory|does not exist in|already exists)", each):
            return match[1], None
        elif match := re.match(r"\|?(?:---|\+\+\+) [ab]/(\S+)", each):
            file = match[1]
    return file, line
