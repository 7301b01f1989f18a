"""A source tree with changes that somebody offers, such as those of a pull request. Keyed by what the patches say."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import DownloadError, StepError, ToolError
from llama_runner.core.record import STATE_FILE
from llama_runner.core.redaction import public_url
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, unkeyed
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp.source_tree import SourceTree
from llama_runner.steps.git_checkout import TREE_BYTES
from llama_runner.store.layout import PATCHES, SOURCES, safe_name
from llama_runner.system.files import read_bounded
from llama_runner.system.git import environment
from llama_runner.system.programs import find_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.workspace import Workspace

_LARGEST = 16 << 20
_CHANGE = rb"^(\+\+\+ |GIT binary patch|rename to |new mode |(new|deleted) file mode )"
"""How a line begins that says what is changed; git and patch take a text without any for a success or for garbage."""


def patch_does_not_apply_error(patch: str, file: str, line: int | None, said: list[str], log: str | None) -> StepError:
    """A patch does not fit this tree."""
    where = f" to {file}" if file else ""
    where += f" (the hunk at line {line})" if line is not None else ""
    lines = "".join(f"\n  {each}" for each in said[-4:])
    return StepError(
        f"patch {patch} does not apply{where}{lines}" + (f"\nfull log: {log}" if log else ""),
        hint="it was made for another state of llama.cpp; build that one with --source, or get a newer patch",
    )


def no_patch_program_error() -> ToolError:
    """There is neither git nor patch."""
    return ToolError(
        "applying a patch needs git or patch, not found here",
        hint="sudo apt-get install -y git   (macOS: xcode-select --install; Fedora: sudo dnf install git)",
    )


def patch_not_fetched_error(url: str, why: str, hint: str | None = None) -> DownloadError:
    """A patch is not to be had at its URL."""
    url = public_url(url)
    return DownloadError(
        f"cannot fetch the patch {url}: {why}",
        hint=hint or "check the URL and the network; a file with the patch in it can be given instead",
    )


class FetchPatch(Step):
    """A patch by its URL. What it says is the key of what is built with it; once here it is not fetched again."""

    url: str
    """Without credentials: it is keyed and recorded."""
    address: str = unkeyed("")
    """The URL with the credentials that fetch it; empty where there are none."""
    kind: ClassVar[str] = "fetch_patch"
    resource: ClassVar = "network"

    @property
    def source(self) -> dict[str, object]:
        """Where the patch comes from."""
        return {"kind": "url", "ref": self.url}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """By its name; others of that name are told apart by the key."""
        del digests, places
        if key is None:
            return None
        name = self.url.partition("?")[0].rstrip("/").rpartition("/")[2]
        return Place(PATCHES, f"{safe_name(name).removesuffix('.patch')}-{short_hash(key)}.patch")

    def run(self, workspace: Workspace) -> None:
        """Fetch it. Raises ``DownloadError``, also for what is no patch, as a page that asks to log in."""
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
            raise patch_not_fetched_error(self.url, "what is there is no patch")
        workspace.target.write_bytes(content)


def fetch_patch(url: str) -> FetchPatch:
    """Return the step that fetches a patch; credentials in the URL are neither keyed nor recorded."""
    public = public_url(url)
    return FetchPatch(public, "" if public == url else url)


class PatchedTree(Step):
    """A copy of a source tree with patches applied, one after the other."""

    tree: Node
    patches: tuple[Node, ...]
    build: int = unkeyed(0)
    kind: ClassVar[str] = "patch"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Beside the tree without the patches."""
        del digests, places
        return None if key is None else Place(f"{SOURCES}/llama.cpp-b{self.build}-{short_hash(key)}")

    def estimate(self) -> ResourceEstimate:
        """The tree once more."""
        return ResourceEstimate(disk=TREE_BYTES // 2)

    def run(self, workspace: Workspace) -> None:
        """Copy, then apply. All of it is copied: a patch through a hard link would change the original too."""
        names = list(self.tree.files()) if isinstance(self.tree, SourceTree) else None
        _copy(workspace.input("tree"), workspace.out, names, workspace)
        for index, _ in enumerate(self.patches):
            _apply(workspace.input(f"patches.{index}"), workspace)


def _copy(source: Path, target: Path, names: list[str] | None, workspace: Workspace) -> None:
    import shutil  # noqa: PLC0415 - not on the warm path

    if names is None:
        # the file of a submodule that points nowhere would make git look for a repository there
        ignored = shutil.ignore_patterns(STATE_FILE, ".git")
        shutil.copytree(source, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)
        return
    for index, name in enumerate(names):
        workspace.check_cancelled()
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)
        workspace.progress(index + 1, len(names), "files")


def _apply(patch: Path, workspace: Workspace) -> None:
    if not re.search(_CHANGE, read_bounded(patch, _LARGEST), re.MULTILINE):
        raise patch_does_not_apply_error(patch.name, "", None, ["there is no change in it"], None)
    out = workspace.out.resolve()
    if git := find_program("git"):
        # a store inside somebody's repository would have git look for the files at the top of that one
        alone = {"GIT_CEILING_DIRECTORIES": str(out.parent), "GIT_CONFIG_GLOBAL": os.devnull}
        words: list[str | Path] = [git, "apply", "-p1", "--whitespace=nowarn", patch]
        env = {**environment(), **alone, "GIT_CONFIG_NOSYSTEM": "1"}
    elif program := find_program("patch"):
        words = [program, "-p1", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "-r", "-", "-i", patch]
        env = environment()
    else:
        raise no_patch_program_error()
    said: list[str] = []
    try:
        workspace.run_program(words, env=env, cwd=out, on_line=lambda line: said.append(line.strip()))
    except ProgramFailed as error:
        raise patch_does_not_apply_error(patch.name, *_where(said), said, workspace.log_name) from error


def _where(said: list[str]) -> tuple[str, int | None]:
    """Return the file and the line of the hunk that git or patch complains of."""
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
