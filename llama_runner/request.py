"""What one call asks for, as a graph: the source is found, names on the Hub are resolved, wishes are checked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from llama_runner import machine, paths, pipeline, programs
from llama_runner.binaries import cmake
from llama_runner.binaries.pin import load_pin
from llama_runner.convert import official
from llama_runner.core.errors import UsageError
from llama_runner.core.events import Chosen, Noticed, Sink
from llama_runner.core.plan import Plan, Snapshot
from llama_runner.core.record import TREE
from llama_runner.core.sizes import size_text
from llama_runner.core.step import Step, topological
from llama_runner.pipeline import Options, Pipeline
from llama_runner.programs import AUTO, Wanted
from llama_runner.sources.choose import choose
from llama_runner.sources.hub.source import HubGguf
from llama_runner.sources.local import LocalFile, LocalModel
from llama_runner.sources.tuning import Tuning
from llama_runner.steps.download import Download, Hub

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Any, TypedDict

    from llama_runner.convert import Outtype
    from llama_runner.convert.official import Choice, Converter
    from llama_runner.engine.store import Store
    from llama_runner.sources.hub.access import Access
    from llama_runner.sources.hub.names import HubName
    from llama_runner.sources.hub.pins import Pin, RemoteFile
    from llama_runner.sources.hub.resolve import Resolver
    from llama_runner.sources.hub.selection import Wish

    class Wishes(TypedDict, total=False):
        """What may be asked for beside the model, by keyword; ``Options`` and ``Tuning`` say what each one means."""

        hf_model: str | None
        gguf_path: str | Path | None
        safetensors_dir: str | Path | None
        demo: bool
        quantization: str | None
        outtype: Outtype
        pre_tokenizer: str | None
        """llama.cpp's name for how the tokenizer splits text, where it is not recognised."""
        converter: Converter
        trust_remote_code: bool
        mmproj: bool
        lora: Iterable[str | Path]
        """LoRA adapters: GGUF files, or directories of safetensors."""
        keep_f16: bool
        device: str
        """What to compute on: ``auto``, one of llama.cpp's backends, ``+rpc`` after it to use other machines too."""
        build_type: str
        cmake_args: Iterable[str]
        cflags: str
        cxxflags: str
        jobs: int | None
        filename: str | None
        """The GGUF file of a repository that is meant."""
        pattern: str | None
        """What the name of the file that is meant looks like: ``*UD-Q4*``."""
        max_size: int | None
        """Bytes that model and projector may have."""
        fit_memory: bool
        """Whether to choose the best GGUF that this machine's memory can hold."""
        projector: bool
        """Whether a vision model's projector comes along; it does by default."""
        update: bool
        """Whether to ask the Hub what a name means now."""
        offline: bool
        """Whether to fail rather than use the network."""
        token_file: str | Path | None
        """A file with the token for the Hub, instead of ``HF_TOKEN`` or the one that was logged in with."""
        imatrix: str | Path | None
        calibration: str | Path | None
        calibration_chunks: int | None
        tensor_types: Iterable[str]
        output_tensor_type: str | None
        token_embedding_type: str | None
        pure: bool
        leave_output_tensor: bool
        prune_layers: str | None
        keep_split: bool
        allow_requantize: bool
        quality: str | Path | None
        quality_chunks: int
        force: Iterable[str]
        """Kinds of steps that run whatever their records say; ``("all",)`` for every one."""
        fresh_tools: bool
        """Whether what another version of a tool made counts as out of date."""


class UnknownStep(UsageError):
    """There is no such step to force in what was asked for."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name, self.steps = name, steps
        super().__init__(f"there is no step called {name!r} here", hint=f"the steps are {', '.join(steps)}")


class OnlyForHub(UsageError):
    """Wishes that make sense for a name on the Hub, of something that lies here."""

    def __init__(self, options: list[str]) -> None:
        self.options = options
        super().__init__(f"{' and '.join(options)} are about models on the Hub", hint="leave them out")


class Request:
    """One call: its graph, and what is to be remembered once everything of it is there."""

    def __init__(self, model: str | Path | None, wishes: Wishes, *, store: Store, sink: Sink, remember: bool) -> None:
        """Find out what is meant. Asks the Hub only about what is not known; writes only to ``remember`` the answer."""
        self._store, self._sink, self._wishes = store, sink, wishes
        self._offline = wishes.get("offline", False) or _is_offline()
        source = choose(
            model,
            hf_model=wishes.get("hf_model"),
            gguf_path=wishes.get("gguf_path"),
            safetensors_dir=wishes.get("safetensors_dir"),
            demo=wishes.get("demo", False),
        )
        self._remember = remember
        self.pre_tokenizer = wishes.get("pre_tokenizer")
        self._resolver: Resolver | None = None
        self.graph = self._graph(source)
        self.snapshot = _snapshot(self.graph, wishes)

    def announce(self, plan: Plan) -> None:
        """Say what will be fetched and compiled, before it is."""
        binaries = self._programs
        if binaries.why and any(planned.step is binaries.node for planned in plan.pending):
            self._sink(Noticed("backend", binaries.why))
        self._announce_script(plan)
        source = self.graph.source
        files = [file for step in _fetching(plan) if isinstance(step, Download) for file in step.remote]
        if files and not isinstance(source, (LocalFile, LocalModel)):
            why = source.choice.why if isinstance(source, HubGguf) else "to be converted here"
            names = tuple(file.name for file in sorted(files, key=lambda file: -file.size))
            self._sink(Chosen(source.pin.repo, source.pin.commit, names, sum(file.size for file in files), why))

    def _announce_script(self, plan: Plan) -> None:
        """Say that llama.cpp's own script will run, why, and what is installed for it."""
        if not plan.pending:
            return
        from llama_runner.steps.environment import (  # noqa: PLC0415 - not on the warm path
            FETCHED_BYTES,
            INSTALLED_BYTES,
            ConverterEnvironment,
        )
        from llama_runner.steps.official import OfficialAdapter, OfficialConvert  # noqa: PLC0415

        running = [planned.step for planned in plan.pending]
        made = [step.kind for step in running if isinstance(step, (OfficialConvert, OfficialAdapter))]
        if not made:
            return
        choice = self.graph.official
        why = f"llama.cpp's own script converts ({choice.why if choice else ' and '.join(dict.fromkeys(made))})"
        for step in running:
            if isinstance(step, ConverterEnvironment):
                sizes = f"{size_text(INSTALLED_BYTES)}, {size_text(FETCHED_BYTES)} to fetch"
                why += f", in a Python environment of its own, which is installed first ({sizes})"
        self._sink(Noticed("official_converter", why))

    def check_offline(self, plan: Plan) -> None:
        """Raise ``Offline`` if something would have to be fetched and must not be."""
        if self._offline and (fetching := _fetching(plan)):
            from llama_runner.sources.hub.errors import Offline  # noqa: PLC0415 - not on the warm path

            raise Offline(", ".join(_what(step) for step in fetching))

    def settle(self) -> None:
        """Everything is there: from now on a name that was updated means what it means on the Hub."""
        if self._resolver is not None:
            self._resolver.settle()

    def _graph(self, source: LocalModel | LocalFile | HubName) -> Pipeline:
        wishes = self._wishes
        quantization, hub = wishes.get("quantization"), None
        found: pipeline.AnySource
        if isinstance(source, (LocalModel, LocalFile)):
            found = source
            names = ("filename", "pattern", "max_size", "fit_memory", "update", "token_file")
            if given := [f"--{name.replace('_', '-')}" for name in names if wishes.get(name)]:
                raise OnlyForHub(given)
        else:
            self._resolver = resolver = self._make_resolver()
            own_making = _tuning(wishes) != Tuning() or wishes.get("mmproj") or wishes.get("converter") == "official"
            found = resolver.resolve(source, self._wish(), own_making=bool(own_making))
            hub = Hub(found.pin, lambda: resolver.access, lambda file: self._candidates(resolver, found.pin, file))
            quantization = getattr(found, "quantization", None)
        self._programs = programs.compiled(
            _wanted(wishes), pin=load_pin(paths.pin_file()), environment=os.environ, noted=_noted(self._store)
        )
        options = Options(
            quantization=quantization,
            tuning=_tuning(wishes),
            outtype=wishes.get("outtype", "auto"),
            pre_tokenizer=wishes.get("pre_tokenizer"),
            converter=wishes.get("converter", "auto"),
            trust_remote_code=wishes.get("trust_remote_code", False),
            mmproj=wishes.get("mmproj", False),
            adapters=tuple(paths.user_path(path).absolute() for path in wishes.get("lora", ())),
            keep_f16=wishes.get("keep_f16", False),
        )
        return pipeline.build(found, options, programs=self._programs, hub=hub)

    def _make_resolver(self) -> Resolver:
        from llama_runner.sources.hub.resolve import Resolver  # noqa: PLC0415 - only for names on the Hub

        return Resolver(
            self._store.private,
            access=self._access,
            sink=self._sink,
            offline=self._offline,
            update=self._wishes.get("update", False),
            remember=self._remember,
            pre_tokenizer=self._wishes.get("pre_tokenizer"),
            choose=self._choose,
        )

    def _choose(self, directory: Path) -> Choice:
        """Return who converts the model that a directory describes."""
        wishes = self._wishes
        return official.choose(
            directory,
            wishes.get("converter", "auto"),
            projector=wishes.get("mmproj", False),
            trusted=wishes.get("trust_remote_code", False),
        )

    def inspect(self, source: LocalModel) -> int | None:
        """Return the context length of a model directory. Raises a ``SourceError`` for what would stop a conversion."""
        from llama_runner.convert import inspect  # noqa: PLC0415 - not on the warm path

        if source is not self.graph.source:
            official.check_adapter(source.path)
            return None
        if self.graph.official:
            official.check_weights(source.path)
            return self.graph.official.context_length
        return inspect(source.path, pre_tokenizer=self.pre_tokenizer).context_length

    def _wish(self) -> Wish:
        from llama_runner.sources.hub.selection import Wish  # noqa: PLC0415 - only for names on the Hub

        wishes = self._wishes
        sizes = [wishes.get("max_size")]
        if wishes.get("fit_memory"):
            sizes.append(machine.model_budget())
        return Wish(
            quantization=wishes.get("quantization"),
            filename=wishes.get("filename"),
            pattern=wishes.get("pattern"),
            max_size=min((size for size in sizes if size is not None), default=None),
            projector=wishes.get("projector", True),
        )

    def _access(self) -> Access:
        from llama_runner.sources.hub.access import find_access  # noqa: PLC0415 - not on the warm path

        file = self._wishes.get("token_file")
        return find_access(
            os.environ,
            token_file=None if file is None else paths.user_path(file),
            notice=lambda what, text: self._sink(Noticed(what, text)),
        )

    def _candidates(self, resolver: Resolver, pin: Pin, file: RemoteFile) -> Iterator[Path]:
        """Yield files on this machine that may hold these bytes: of another revision, of the user's own cache."""
        from llama_runner.sources.hub.cache import find_cached  # noqa: PLC0415 - not on the warm path

        described = resolver.description(pin) / file.name
        if described.is_file():
            yield described
        if file.sha256 is not None:
            yield from self._store.holding(file.sha256, pin.siblings)
        if cached := find_cached(pin, file, os.environ):
            yield cached


def _tuning(wishes: Wishes) -> Tuning:
    texts = {name: wishes.get(name) for name in ("imatrix", "calibration", "quality")}
    given = {name: paths.user_path(cast("str", path)) for name, path in texts.items() if path is not None}
    return Tuning(
        **given,
        calibration_chunks=wishes.get("calibration_chunks"),
        tensor_types=tuple(wishes.get("tensor_types", ())),
        output_tensor_type=wishes.get("output_tensor_type"),
        token_embedding_type=wishes.get("token_embedding_type"),
        pure=wishes.get("pure", False),
        leave_output_tensor=wishes.get("leave_output_tensor", False),
        prune_layers=wishes.get("prune_layers"),
        keep_split=wishes.get("keep_split", False),
        allow_requantize=wishes.get("allow_requantize", False),
        quality_chunks=wishes.get("quality_chunks", Tuning().quality_chunks),
    )


def _wanted(wishes: Wishes) -> Wanted:
    compilation = cmake.Wishes(
        build_type=wishes.get("build_type", "Release"),
        arguments=tuple(wishes.get("cmake_args", ())),
        cflags=wishes.get("cflags", ""),
        cxxflags=wishes.get("cxxflags", ""),
    )
    return Wanted(wishes.get("device", AUTO), compilation, wishes.get("jobs"))


def _noted(store: Store) -> Iterator[Mapping[str, Any]]:
    """Yield what the records of builds know of compilers; those that built something here need not be asked again."""
    builds = (records.get(TREE) for _, records in store.directories(f"bins/{machine.platform_tag()}", "*"))
    return (record.noted for record in builds if record is not None)


def _fetching(plan: Plan) -> list[Step]:
    return [planned.step for planned in plan.pending if planned.step.needs().fetch]


def _what(step: Step) -> str:
    """Say what a step would fetch."""
    if isinstance(step, Download):
        more = f" and {len(step.remote) - 1} more" if len(step.remote) > 1 else ""
        return f"{step.remote[0].name}{more} of {step.hub.pin.repo}"
    return str(step.source.get("ref", step.kind))


def _is_offline() -> bool:
    """Whether huggingface_hub is told to stay offline; then so are we."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in _OFFLINE)


_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def _snapshot(graph: Pipeline, wishes: Wishes) -> Snapshot:
    forced = frozenset(wishes.get("force", ()))
    steps = [node.kind for node in topological(graph.targets) if isinstance(node, Step)]
    if "all" in forced:
        forced = frozenset(steps)
    for name in sorted(forced - set(steps)):
        raise UnknownStep(name, steps)
    return Snapshot({}, forced, wishes.get("fresh_tools", False))
