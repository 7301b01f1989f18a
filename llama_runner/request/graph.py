"""The whole pipeline on one page: a source and some wishes become a graph of steps.

    directory of safetensors ──► convert ──► quantize ──► model ─┐
    GGUF file ───────────────────────(────► quantize)──► model ─┤
                                                ▲ notes          ├─► launch
    index, archive, git, system ──(see programs.py)──► binaries ─┘

Solid arrows are keyed by the digest of what flows along them. Conversion and quantization only *note* the tool
that made them, so a new llama.cpp makes no model again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

from llama_runner.convert.official_script import choose
from llama_runner.core.errors import UsageError
from llama_runner.core.step import Step
from llama_runner.core.value import Value, field
from llama_runner.request.conversion_graph import Conversion, NoWeightsToSee, is_made_here
from llama_runner.sources import quantization_types as quantizations
from llama_runner.sources.checkpoint_quantization import stored
from llama_runner.sources.hub.source import HubGguf, HubSafetensors
from llama_runner.sources.local import LocalFile, LocalModel, open_plain
from llama_runner.sources.quantize_options import Tuning
from llama_runner.steps import download
from llama_runner.steps.imatrix import Imatrix
from llama_runner.steps.quality import Quality
from llama_runner.steps.quantize import Quantize
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llama_runner.convert import Outtype
    from llama_runner.core.converter import Converter, ConverterChoice
    from llama_runner.core.step import Node
    from llama_runner.request.binaries_graph import Programs
    from llama_runner.request.conversion_graph import Adapter
    from llama_runner.sources.checkpoint_quantization import Stored


AnySource = LocalModel | LocalFile | HubGguf | HubSafetensors


AS_IT_COMES = "auto"
"""Not quantized: in the type of the conversion, which is the 16-bit one of the weights unless one is asked for."""


class Options(Value):
    """What the user may wish of the artifacts. Nothing here concerns the launch."""

    quantization: str | None = None
    """None: q4_k_m for safetensors, as it is for a GGUF file or for MXFP4. Several, with commas between them, share a
    conversion."""
    tuning: Tuning = field(default_factory=Tuning)
    outtype: Outtype = "auto"
    pre_tokenizer: str | None = None
    converter: Converter = "auto"
    """Who converts: we, or llama.cpp's own script, which is taken for what we do not know."""
    trust_remote_code: bool = False
    """Whether that script may run code that came with the model."""
    mmproj: bool = False
    """Whether to make the projector of a model whose weights are converted here."""
    adapters: tuple[Path, ...] = ()
    """LoRA adapters, as GGUF files or as directories of safetensors."""
    keep_f16: bool = False


class Pipeline(Value):
    """The graph of one request.

    ``model`` is the step that gives the model, None for a file where it lies; ``others`` are further quantizations of
    it, and ``projector`` is what a vision model has beside it. ``measured`` says how good what is quantized is.
    """

    source: AnySource
    model: Step | None
    binaries: Node
    projector: Step | None = None
    others: tuple[Step, ...] = ()
    measured: tuple[Quality, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    official: ConverterChoice | None = None
    """Why llama.cpp's own script converts the weights, where it does."""

    @property
    def alias(self) -> str:
        """The name that the API gives the model: the source's, and the quantization if we chose it."""
        source = self.source
        name = source.pin.repo if isinstance(source, HubSafetensors) else source.name.replace(",", "_")
        if self.model is None or isinstance(self.model, download.Download):
            return name
        return f"{name}:{getattr(self.model, 'label', None) or getattr(self.model, 'outtype', '')}"

    @property
    def targets(self) -> tuple[Step, ...]:
        """What has to be there before the launch."""
        every = (self.model, *self.others, self.projector, *self.measured, *self.adapters, self.binaries)
        return tuple(step for step in every if isinstance(step, Step))

    @property
    def files(self) -> tuple[Step, ...]:
        """What is made here of the model: it first, its further quantizations, its projector, its adapters."""
        every = (self.model, *self.others, *filter(is_made_here, (self.projector, *self.adapters)))
        return tuple(step for step in every if isinstance(step, Step))


class QuantizedAlready(UsageError):
    """A file that has lost something already would lose more."""

    def __init__(self, found: str, wanted: str) -> None:
        self.found, self.wanted = found, wanted
        super().__init__(
            f"the model is {found} already, and {wanted} made of that would be worse than either",
            hint="start from f16, bf16 or f32, leave --quantization out to use it as it is, "
            "or insist with --allow-requantize",
        )


class NothingToMake(UsageError):
    """The model is a GGUF file already, and nothing else was asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} is a GGUF file already", hint="say what to make of it with --quantization")


class NothingToTune(UsageError):
    """Wishes about how to quantize, and nothing is quantized."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        super().__init__(
            f"{' '.join(words)} is about quantizing, and nothing will be quantized",
            hint="say to what with --quantization",
        )


def build(
    source: AnySource,
    options: Options,
    *,
    programs: Programs,
    hub: download.Hub | None = None,
) -> Pipeline:
    """Return the graph for a source; ``UsageError`` when the wishes make no sense for it.

    ``hub`` says how to fetch a source that is on the Hub.
    """
    match source:
        case HubGguf():
            assert hub is not None
            return _as_it_is(source, options, programs, hub).but(adapters=_adapters(source, options, programs))
        case LocalFile():
            if options.mmproj:
                raise NoWeightsToSee(source.path)
            return _from_file(source, options, programs).but(adapters=_adapters(source, options, programs))
        case HubSafetensors():
            assert hub is not None
            size = sum(file.size for file in source.files)
            model = download.safetensors(source.files, hub)
            return _from_weights(source, model, size, source.stored, source.choice, options, programs)
        case LocalModel():
            trusted = options.trust_remote_code
            choice = choose(source.path, options.converter, projector=options.mmproj, trusted=trusted)
            source = source.but(reads=choice.reads, converted_here=not choice.official)
            found = stored(source.path)
            return _from_weights(source, source, _weight_bytes(source), found, choice, options, programs)


def _adapters(source: HubGguf | LocalFile, options: Options, programs: Programs) -> tuple[Adapter, ...]:
    """Return the adapters for a model that is not converted here."""
    conversion = Conversion(programs.node, source.name, 0, None, programs.tree, None, trusted=False)
    return conversion.adapters(options.adapters)


def _as_it_is(source: HubGguf, options: Options, programs: Programs, hub: download.Hub) -> Pipeline:
    if options.tuning != Tuning():
        raise NothingToTune(_tuned(options.tuning))
    projector = source.choice.projector
    return Pipeline(
        source,
        download.gguf(source.choice.model.files, hub),
        programs.node,
        None if projector is None else download.projector(projector, hub),
    )


def _from_file(source: LocalFile, options: Options, programs: Programs) -> Pipeline:
    wanted = _wanted(options)
    if not wanted:
        if options.tuning != Tuning():
            raise NothingToTune(_tuned(options.tuning))
        return Pipeline(source, None, programs.node)
    if AS_IT_COMES in wanted:
        raise NothingToMake(str(source.path))
    found = source.header.facts().get("quantization")
    if found not in (*quantizations.FLOAT, None) and not options.tuning.allow_requantize and wanted != ["copy"]:
        raise QuantizedAlready(str(found), wanted[0])
    size, shards = sum(path.stat().st_size for path in source.shards), len(source.shards)
    first, *others = _quantized(source, wanted, programs.node, size, options.tuning, shards)
    measured = _measured((first, *others), programs.node, options.tuning)
    return Pipeline(source, first, programs.node, others=tuple(others), measured=measured)


def _from_weights(
    source: LocalModel | HubSafetensors,
    model: Node,
    size: int,
    found: Stored | None,
    choice: ConverterChoice,
    options: Options,
    programs: Programs,
) -> Pipeline:
    kept = None if found is None else found.kept
    size = size if found is None else found.converted_bytes(size)
    as_it_comes = options.outtype == "q8_0" or (kept is not None and options.tuning == Tuning())
    wanted = _wanted(options) or [AS_IT_COMES if as_it_comes else quantizations.DEFAULT]
    if options.tuning != Tuning() and set(wanted) <= {*quantizations.FLOAT, AS_IT_COMES}:
        raise NothingToTune(_tuned(options.tuning))
    trusted = options.trust_remote_code
    conversion = Conversion(model, source.name, size, choice, programs.tree, options.pre_tokenizer, trusted)
    base = conversion.base(options.outtype, keep=options.keep_f16)
    converted = [kind for kind in wanted if kind in (*quantizations.FLOAT, AS_IT_COMES)]
    made: dict[str, Step] = {}
    for kind in converted:
        outtype = options.outtype if kind == AS_IT_COMES else cast("Outtype", kind)
        made[kind] = conversion.base(outtype)
    kinds = [kind for kind in wanted if kind not in made]
    if kinds and options.outtype == "q8_0" and not options.tuning.allow_requantize:
        raise QuantizedAlready(options.outtype, kinds[0])
    if kept is not None and not options.tuning.allow_requantize and (lossy := {*kinds} - {kept, "copy"}):
        raise QuantizedAlready(kept, min(lossy))
    made |= zip(kinds, _quantized(base, kinds, programs.node, size, options.tuning, 1), strict=True)
    first, *others = (made[kind] for kind in wanted)
    measured = _measured(made.values(), programs.node, options.tuning)
    return Pipeline(
        source,
        first,
        programs.node,
        projector=conversion.projector(options.outtype) if options.mmproj else None,
        others=tuple(others),
        measured=measured,
        adapters=conversion.adapters(options.adapters),
        official=choice if choice.official else None,
    )


def _wanted(options: Options) -> list[str]:
    """Return the quantizations that were asked for, each once, in their order."""
    if not options.quantization:
        return []
    names = filter(None, (name.strip() for name in options.quantization.split(",")))
    known = {AS_IT_COMES: AS_IT_COMES}
    with_imatrix = options.tuning.has_imatrix
    return list(dict.fromkeys(known.get(name) or quantizations.canonical(name, imatrix=with_imatrix) for name in names))


def _quantized(base: Node, kinds: list[str], binaries: Node, size: int, tuning: Tuning, shards: int) -> list[Quantize]:
    """Return the steps that quantize a base, each in its way and all with one importance matrix."""
    words, threads = tuning.words(), hardware.physical_cores()
    imatrix: Node | None = None
    if tuning.imatrix is not None:
        imatrix = open_plain(tuning.imatrix)
    elif tuning.calibration is not None:
        imatrix = Imatrix(base, open_plain(tuning.calibration), tuning.calibration_chunks, binaries, threads)
    several = shards if tuning.keep_split and shards > 1 else 0
    return [Quantize(base, kind, binaries, size, threads, imatrix, words, several) for kind in kinds]


def _measured(made: Iterable[Step], binaries: Node, tuning: Tuning) -> tuple[Quality, ...]:
    """Return the steps that compare what is quantized with what it is made of."""
    if tuning.quality is None:
        return ()
    text, chunks, threads = open_plain(tuning.quality), tuning.quality_chunks, hardware.physical_cores()
    quantized = [step for step in made if isinstance(step, Quantize)]
    return tuple(Quality(step, step.model, text, chunks, binaries, threads) for step in quantized)


def _tuned(tuning: Tuning) -> list[str]:
    given = [f"--{name}" for name in ("imatrix", "calibration", "quality") if getattr(tuning, name) is not None]
    return [*given, *tuning.words()]


def _weight_bytes(source: LocalModel) -> int:
    """Return about how many bytes the weights take; what is wrong with a file is said when its digest is asked for."""
    total = 0
    for name, path in source.files().items():
        if name.endswith(".safetensors"):
            with suppress(OSError):
                total += path.stat().st_size
    return total
