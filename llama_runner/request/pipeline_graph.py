"""The whole pipeline on one page: facts and options become a graph of steps. Reads nothing: see ``model_facts``.

    directory of safetensors ──► convert ──► quantize ──► model ─┐
    GGUF file ───────────────────────(────► quantize)──► model ─┤
                                                ▲ notes          ├─► launch
    index, archive, git, system ──(see binaries_graph)──► binaries ─┘

Solid arrows are keyed by the digest of what flows along them. Conversion and quantization only *note* the tool
that made them, so a new llama.cpp makes no model again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Step
from llama_runner.request import binaries_graph
from llama_runner.request.conversion_graph import UNKNOWN, Conversion, NoWeightsToSee, is_made_here
from llama_runner.sources import quantization_types as quantizations
from llama_runner.sources.hub.source import HubGguf, HubSafetensors
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.sources.quantize_options import QuantizeOptions
from llama_runner.steps import download
from llama_runner.steps.compare_with_original import Check
from llama_runner.steps.imatrix import Imatrix
from llama_runner.steps.perplexity import Quality
from llama_runner.steps.quantize import Quantize

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.convert import Outtype
    from llama_runner.core.converter_choice import ConverterChoice
    from llama_runner.core.step import Node
    from llama_runner.request.binaries_graph import Programs
    from llama_runner.request.conversion_graph import Adapter
    from llama_runner.request.model_facts import AnySource, ModelFacts
    from llama_runner.request.request_keywords import Options
    from llama_runner.request.resolve_request import Request


AS_IT_COMES = "auto"
"""Not quantized: in the type of the conversion, which is the 16-bit one of the weights unless one is asked for."""


class Pipeline(Value):
    """The graph of one request.

    ``model`` is the step that gives the model, None for a file where it lies; ``others`` are further quantizations of
    it, and ``projector`` is what a vision model has beside it. ``measured`` says how good what is quantized is.
    """

    source: AnySource
    model: Step | None
    programs: Programs
    projector: Step | None = None
    others: tuple[Step, ...] = ()
    measured: tuple[Quality, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    adapter_names: tuple[str, ...] = ()
    adapter_scales: tuple[float, ...] = ()
    adapter_bases: tuple[str | None, ...] = ()
    """The models that they were trained for, as far as their settings say."""
    official: ConverterChoice | None = None
    """Why llama.cpp's own script converts the weights, where it does."""
    pre_tokenizer: str | None = None
    checks: tuple[Check, ...] = ()
    """What compares the converted model with its original; no target by itself: see ``check_after_conversion``."""

    @property
    def binaries(self) -> Node:
        """What gives llama.cpp's programs."""
        return self.programs.node

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
        return (*self.of_the_model, self.binaries) if isinstance(self.binaries, Step) else self.of_the_model

    @property
    def of_the_model(self) -> tuple[Step, ...]:
        """What has to be there of the model, without the programs."""
        every = (self.model, *self.others, self.projector, *self.measured, *self.adapters)
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
    """Options of quantization are given, and nothing is quantized."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        super().__init__(
            f"{' '.join(words)} is about quantizing, and nothing will be quantized",
            hint="say to what with --quantization",
        )


def graph_of(request: Request) -> Pipeline:
    """Return the graph of a request: its options and its facts are all that it is built from."""
    return build(request.facts, request.options, binaries_graph.programs_graph_of(request))


def build(facts: ModelFacts, options: Options, programs: Programs) -> Pipeline:
    """Return the graph for a source; ``UsageError`` when the options make no sense for it."""
    graph = _build(facts, options, programs)
    if not facts.adapters:
        return graph
    return graph.replace(
        adapter_names=tuple(each.name for each in facts.adapters),
        adapter_scales=tuple(each.scale for each in facts.adapters),
        adapter_bases=tuple(each.trained_for for each in facts.adapters),
    )


def _build(facts: ModelFacts, options: Options, programs: Programs) -> Pipeline:
    source = facts.source
    match source:
        case HubGguf():
            graph = _as_it_is(source, facts, options, programs)
            named = (source.pin.gguf or {}).get("architecture", UNKNOWN)
            return graph.replace(
                adapters=_adapters(facts, options, programs, graph.model, named if isinstance(named, str) else None)
            )
        case LocalGguf():
            if options.mmproj:
                raise NoWeightsToSee(source.path)
            return _from_file(source, facts, options, programs).replace(adapters=_adapters(facts, options, programs))
        case HubSafetensors():
            assert facts.hub is not None
            return _from_weights(download.safetensors(source.files, facts.hub), facts, options, programs)
        case LocalSafetensors():
            return _from_weights(source, facts, options, programs)


def _adapters(
    facts: ModelFacts,
    options: Options,
    programs: Programs,
    model: Node | None = None,
    architecture: object = None,
) -> tuple[Adapter, ...]:
    """Return the adapters for a model that is not converted here; ``model`` is a GGUF file that may not be here yet."""
    conversion = Conversion(
        model or programs.node,
        facts.source.name,
        0,
        None,
        programs.tree,
        None,
        options.trust_remote_code,
        facts.adapter_base,
        architecture,
    )
    return conversion.adapters(facts.adapters)


def _as_it_is(source: HubGguf, facts: ModelFacts, options: Options, programs: Programs) -> Pipeline:
    hub = facts.hub
    assert hub is not None
    if options.tuning != QuantizeOptions():
        raise NothingToTune(_tuned(options.tuning))
    projector = source.selection.projector
    return Pipeline(
        source,
        download.gguf(source.selection.model.files, hub),
        programs,
        None if projector is None else download.projector(projector, hub),
    )


def _from_file(source: LocalGguf, facts: ModelFacts, options: Options, programs: Programs) -> Pipeline:
    wanted = _wanted(options)
    if not wanted:
        if options.tuning != QuantizeOptions():
            raise NothingToTune(_tuned(options.tuning))
        return Pipeline(source, None, programs)
    if AS_IT_COMES in wanted:
        raise NothingToMake(str(source.path))
    found = source.header.facts().get("quantization")
    if found not in (*quantizations.FLOAT, None) and not options.tuning.allow_requantize and wanted != ["copy"]:
        raise QuantizedAlready(str(found), wanted[0])
    first, *others = _quantized(source, wanted, programs, facts, options.tuning, facts.bytes)
    measured = _measured((first, *others), programs, facts, options.tuning)
    return Pipeline(source, first, programs, others=tuple(others), measured=measured)


def _from_weights(model: Node, facts: ModelFacts, options: Options, programs: Programs) -> Pipeline:
    source, found, choice = facts.source, facts.checkpoint_quantization, facts.choice
    assert choice is not None, "it is known who converts weights"
    kept = None if found is None else found.unchanged_type
    size = facts.bytes if found is None else found.converted_bytes(facts.bytes)
    as_it_comes = options.outtype == "q8_0" or (kept is not None and options.tuning == QuantizeOptions())
    wanted = _wanted(options) or [AS_IT_COMES if as_it_comes else quantizations.DEFAULT]
    if options.tuning != QuantizeOptions() and set(wanted) <= {*quantizations.FLOAT, AS_IT_COMES}:
        raise NothingToTune(_tuned(options.tuning))
    trusted = options.trust_remote_code
    conversion = Conversion(
        model, source.name, size, choice, programs.tree, options.pre_tokenizer, trusted, facts.adapter_base
    )
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
    made |= zip(kinds, _quantized(base, kinds, programs, facts, options.tuning, size), strict=True)
    first, *others = (made[kind] for kind in wanted)
    measured = _measured(made.values(), programs, facts, options.tuning)
    return Pipeline(
        source,
        first,
        programs,
        projector=conversion.projector(options.outtype) if options.mmproj else None,
        others=tuple(others),
        measured=measured,
        adapters=conversion.adapters(facts.adapters),
        official=choice if choice.official else None,
        pre_tokenizer=options.pre_tokenizer,
        checks=(Check(first, model, programs.node),) if options.check else (),
    )


def _wanted(options: Options) -> list[str]:
    """Return the quantizations that were asked for, each once, in their order."""
    if not options.quantization:
        return []
    names = [name.strip() for name in options.quantization.split(",") if name.strip()]
    if not names:
        raise quantizations.unknown_quantization_error(options.quantization)
    known = {AS_IT_COMES: AS_IT_COMES}
    with_imatrix = options.tuning.has_imatrix
    return list(
        dict.fromkeys(known.get(name) or quantizations.canonical_type(name, imatrix=with_imatrix) for name in names)
    )


def _quantized(
    base: Node, kinds: list[str], programs: Programs, facts: ModelFacts, tuning: QuantizeOptions, size: int
) -> list[Quantize]:
    """Return the steps that quantize a base, each in its way and all with one importance matrix."""
    words, binaries, threads = tuning.arguments(), programs.node, facts.cores
    imatrix: Node | None = facts.imatrix
    if imatrix is None and facts.calibration is not None:
        imatrix = Imatrix(base, facts.calibration, tuning.calibration_chunks, binaries, threads)
    shards = len(base.shards) if isinstance(base, LocalGguf) else 1
    several = shards if tuning.keep_split and shards > 1 else 0
    return [Quantize(base, kind, binaries, size, threads, imatrix, words, several) for kind in kinds]


def _measured(
    made: Iterable[Step], programs: Programs, facts: ModelFacts, tuning: QuantizeOptions
) -> tuple[Quality, ...]:
    """Return the steps that compare what is quantized with what it is made of."""
    text = facts.quality
    if text is None:
        return ()
    quantized = [step for step in made if isinstance(step, Quantize)]
    chunks, threads = tuning.quality_chunks, facts.cores
    return tuple(Quality(step, step.model, text, chunks, programs.node, threads) for step in quantized)


def _tuned(tuning: QuantizeOptions) -> list[str]:
    given = [f"--{name}" for name in ("imatrix", "calibration", "quality") if getattr(tuning, name) is not None]
    return [*given, *tuning.arguments()]
