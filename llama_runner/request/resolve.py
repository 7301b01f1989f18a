"""What one call asks for, as a graph: the source is found, names on the Hub are resolved, wishes are checked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_runner.convert import official_script
from llama_runner.core.errors import UsageError
from llama_runner.core.events import Chosen, Noticed, Sink, Warned
from llama_runner.core.sizes import size_text
from llama_runner.llama_cpp.build_selection import StoredPrograms, other_platform_error
from llama_runner.request import binaries_graph, graph
from llama_runner.request.graph import Options, Pipeline
from llama_runner.request.options import check, snapshot_of, tuning_of, wanted_of
from llama_runner.sources.hub.source import HubGguf
from llama_runner.sources.local import LocalFile, LocalModel
from llama_runner.sources.open_source import check_not_adapter, choose
from llama_runner.sources.quantize_options import Tuning
from llama_runner.steps.download import Download, Hub
from llama_runner.store import layout
from llama_runner.system import hardware
from llama_runner.system.network import is_offline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llama_runner.core.converter import ConverterChoice
    from llama_runner.core.errors import StepError
    from llama_runner.core.plan import Plan, Snapshot
    from llama_runner.core.step import Step
    from llama_runner.engine.outcome import Outcome
    from llama_runner.request.options import Wishes
    from llama_runner.sources.hub.access import Access
    from llama_runner.sources.hub.file_selection import Wish
    from llama_runner.sources.hub.names import HubName
    from llama_runner.sources.hub.pins import Pin, RemoteFile
    from llama_runner.sources.hub.resolver import Resolver
    from llama_runner.store.artifacts import Store


class OnlyForHub(UsageError):
    """Wishes that make sense for a name on the Hub, of something that lies here."""

    def __init__(self, options: list[str]) -> None:
        self.options = options
        super().__init__(f"{' and '.join(options)} are about models on the Hub", hint="leave them out")


class ProgramsRequest:
    """One call that asks for llama.cpp's programs."""

    def __init__(self, wishes: Wishes, *, store: Store, sink: Sink) -> None:
        """Find out which are meant."""
        check(wishes)
        self._store, self._sink, self._wishes = store, sink, wishes
        self._offline = wishes.get("offline", False) or is_offline(os.environ)
        self.programs = binaries_graph.find(
            wanted_of(wishes),
            environment=os.environ,
            store=store,
            update=wishes.get("update", False),
            offline=self._offline,
            notice=lambda what, text: sink(Noticed(what, text)),
        )

    @property
    def targets(self) -> tuple[Step, ...]:
        """What has to be there."""
        return self.programs.steps

    @property
    def snapshot(self) -> Snapshot:
        """What the user insists on, before anything is looked at; ``UnknownStep`` for a step that is not here."""
        return snapshot_of(self.targets, self._wishes)

    def announce(self, plan: Plan) -> None:
        """Say what will be fetched and compiled, before it is."""
        if self.programs.why and any(planned.step is self.programs.node for planned in plan.pending):
            self._sink(Noticed("backend", self.programs.why))

    def check_offline(self, plan: Plan) -> None:
        """Raise ``SourceError`` if something would have to be fetched and must not be."""
        if self._offline and (fetching := _fetching(plan)):
            from llama_runner.sources.hub.errors import offline_error  # noqa: PLC0415 - not on the warm path

            raise offline_error(", ".join(_what(step) for step in fetching))

    def falls_back(self, error: StepError) -> bool:
        """Say whether other programs are tried next: these were rejected, and nobody had asked for them."""
        if not binaries_graph.fall_back(self.programs, error, self._store):
            return False
        self._sink(Warned("rejected", f"{error}; trying {binaries_graph.PORTABLE}, and so in later runs"))
        return True

    def settle(self, outcome: Outcome) -> None:
        """Everything is there: programs that were moved with their root are not read again at the next start."""
        if self.programs.node in outcome.digests:  # who only converts needs none
            binaries_graph.accept(self.programs, self._store)
        if isinstance(self.programs.node, StoredPrograms):
            self.programs.node.remember(self._store)

    def inspect(self, source: LocalModel) -> int | None:
        """Return the context length of a model directory; there is none among what programs are made of."""
        raise NotImplementedError(source.path)


class Request(ProgramsRequest):
    """One call: its graph, and what is to be remembered once everything of it is there."""

    def __init__(self, model: str | Path | None, wishes: Wishes, *, store: Store, sink: Sink, remember: bool) -> None:
        """Find out what is meant. Asks the Hub only about what is not known; writes only to ``remember`` the answer."""
        super().__init__(wishes, store=store, sink=sink)
        if wishes.get("platform") not in (None, hardware.platform_tag()):
            raise other_platform_error("what is to be run here", str(wishes["platform"]))
        source = choose(
            model,
            hf_model=wishes.get("hf_model"),
            gguf_path=wishes.get("gguf_path"),
            safetensors_dir=wishes.get("safetensors_dir"),
            demo=wishes.get("demo", False),
        )
        check_not_adapter(source)
        self._remember = remember
        self.pre_tokenizer = wishes.get("pre_tokenizer")
        self._resolver: Resolver | None = None
        self.graph = self._graph(source)
        if wishes.get("quality") or wishes.get("calibration"):
            from llama_runner.request.model_purpose import check_measured  # noqa: PLC0415 - few models are measured

            check_measured(self.graph, wishes)

    @property
    def targets(self) -> tuple[Step, ...]:
        """What has to be there before the launch."""
        return self.graph.targets

    def announce(self, plan: Plan) -> None:
        """Say what will be fetched and compiled, before it is."""
        super().announce(plan)
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
        from llama_runner.steps.convert_official import OfficialAdapter, OfficialConvert  # noqa: PLC0415
        from llama_runner.steps.python_environment import (  # noqa: PLC0415 - not on the warm path
            FETCHED_BYTES,
            INSTALLED_BYTES,
            ConverterEnvironment,
        )

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

    def check_text(self) -> None:
        """Raise ``UsageError`` for a model that is known to write no text, before any work is done."""
        from llama_runner.request.model_purpose import known_facts  # noqa: PLC0415 - not to serve
        from llama_runner.serving.llama_server.purpose import check_text  # noqa: PLC0415

        check_text(self.graph.alias, known_facts(self.graph.source))

    def settle(self, outcome: Outcome) -> None:
        """Everything is there: from now on a name that was updated means what it means on the Hub."""
        super().settle(outcome)
        if self._resolver is not None:
            self._resolver.settle()

    def _graph(self, source: LocalModel | LocalFile | HubName) -> Pipeline:
        wishes = self._wishes
        quantization, hub = wishes.get("quantization"), None
        found: graph.AnySource
        if isinstance(source, (LocalModel, LocalFile)):
            found = source
            names = ("filename", "pattern", "max_size", "fit_memory", "update", "token_file")
            if given := [f"--{name.replace('_', '-')}" for name in names if wishes.get(name)]:
                raise OnlyForHub(given)
        else:
            self._resolver = resolver = self._make_resolver()
            own_making = tuning_of(wishes) != Tuning() or wishes.get("mmproj") or wishes.get("converter") == "official"
            found = resolver.resolve(source, self._wish(), own_making=bool(own_making))
            hub = Hub(found.pin, lambda: resolver.access, lambda file: self._candidates(resolver, found.pin, file))
            quantization = getattr(found, "quantization", None)
        options = Options(
            quantization=quantization,
            tuning=tuning_of(wishes),
            outtype=wishes.get("outtype", "auto"),
            pre_tokenizer=wishes.get("pre_tokenizer"),
            converter=wishes.get("converter", "auto"),
            trust_remote_code=wishes.get("trust_remote_code", False),
            mmproj=wishes.get("mmproj", False),
            adapters=tuple(layout.user_path(path).absolute() for path in wishes.get("lora", ())),
            keep_f16=wishes.get("keep_f16", False),
        )
        return graph.build(found, options, programs=self.programs, hub=hub)

    def _make_resolver(self) -> Resolver:
        from llama_runner.sources.hub.resolver import Resolver  # noqa: PLC0415 - only for names on the Hub

        return Resolver(
            self._store.private,
            access=self._access,
            sink=self._sink,
            offline=self._offline,
            update=self._wishes.get("update", False),
            remember=self._remember,
            choose=self._choose,
            describe=self._describe,
        )

    def _describe(
        self, directory: Path, choice: ConverterChoice, vocabulary: bool
    ) -> tuple[int | None, tuple[str, ...]]:
        """Return the context length, and the weights that the index names, before they are fetched."""
        pre_tokenizer = self._wishes.get("pre_tokenizer") if vocabulary else None
        return official_script.described(directory, choice, vocabulary=vocabulary, pre_tokenizer=pre_tokenizer)

    def _choose(self, directory: Path, has: Callable[[str], bool]) -> ConverterChoice:
        """Return who converts the model that a directory describes, of which it may hold some files only."""
        wishes = self._wishes
        return official_script.choose(
            directory,
            wishes.get("converter", "auto"),
            projector=wishes.get("mmproj", False),
            trusted=wishes.get("trust_remote_code", False),
            has=has,
        )

    def inspect(self, source: LocalModel) -> int | None:
        """Return the context length of a model directory. Raises a ``SourceError`` for what would stop a conversion."""
        from llama_runner.convert import inspect  # noqa: PLC0415 - not on the warm path

        if any(getattr(one, "adapter", None) is source for one in self.graph.adapters):
            official_script.check_adapter(source.path)
            return None
        if not self.graph.official or self.graph.official.architecture.endswith("ForCausalLM"):
            official_script.check_tokenizer(source.path)
        if self.graph.official:
            official_script.check_weights(source.path)
            return self.graph.official.context_length
        return inspect(source.path, pre_tokenizer=self.pre_tokenizer).context_length

    def _wish(self) -> Wish:
        from llama_runner.sources.hub.file_selection import Wish  # noqa: PLC0415 - only for names on the Hub

        wishes = self._wishes
        sizes = [wishes.get("max_size")]
        if wishes.get("fit_memory"):
            sizes.append(hardware.model_budget())
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
            token_file=None if file is None else layout.user_path(file),
            notice=lambda what, text: self._sink(Noticed(what, text)),
        )

    def _candidates(self, resolver: Resolver, pin: Pin, file: RemoteFile) -> Iterator[Path]:
        """Yield files on this machine that may hold these bytes: of another revision, of the user's own cache."""
        from llama_runner.sources.hub.hf_cache import find_cached  # noqa: PLC0415 - not on the warm path

        described = resolver.description(pin) / file.name
        if described.is_file():
            yield described
        if file.sha256 is not None:
            yield from self._store.holding(file.sha256, pin.siblings)
        if cached := find_cached(pin, file, os.environ):
            yield cached


def _fetching(plan: Plan) -> list[Step]:
    return [planned.step for planned in plan.pending if planned.step.needs().fetch]


def _what(step: Step) -> str:
    """Say what a step would fetch."""
    if isinstance(step, Download):
        more = f" and {len(step.remote) - 1} more" if len(step.remote) > 1 else ""
        return f"{step.remote[0].name}{more} of {step.hub.pin.repo}"
    return str(step.source.get("ref", step.kind))
