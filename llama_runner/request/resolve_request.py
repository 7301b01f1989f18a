"""Resolves one call: finds the source, resolves names on the Hub, and gathers all facts for the graph."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_runner.convert import official_script
from llama_runner.convert.choose_converter import choose_converter
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.core.errors import ToolError, UsageError
from llama_runner.core.events import Noticed, Sink
from llama_runner.llama_cpp.find_installed_build import other_platform_error
from llama_runner.request.choose_binaries import find_program_facts, missing_programs
from llama_runner.request.model_facts import find_model_facts
from llama_runner.request.remote_stores import Opened, remote_store_of
from llama_runner.request.request_keywords import binaries_options_of, checked, options_of, quantize_options_of
from llama_runner.sources.checkpoint_quantization import read_quantization
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.sources.quantize_options import QuantizeOptions
from llama_runner.sources.resolve_source import NotAModel, check_not_adapter, open_named, open_source
from llama_runner.steps.download import Hub
from llama_runner.store import layout
from llama_runner.system import hardware
from llama_runner.system.network_settings import is_offline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llama_runner.core.converter_choice import ConverterChoice
    from llama_runner.request.lock_file import LockedModel
    from llama_runner.request.model_facts import AnySource, ModelFacts
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.request.requested_adapters import RequestedAdapter
    from llama_runner.sources.checkpoint_quantization import CheckpointQuantization
    from llama_runner.sources.hub.adapters import HubAdapter
    from llama_runner.sources.hub.endpoint_and_token import Access
    from llama_runner.sources.hub.file_selection import FileCriteria
    from llama_runner.sources.hub.parse_model_name import HubName
    from llama_runner.sources.hub.pins import Pin, RemoteFile
    from llama_runner.sources.hub.resolver import Resolver
    from llama_runner.store.artifacts import Store


_SOURCES = ("hf_model", "gguf_path", "safetensors_dir", "demo")


class OnlyForHub(UsageError):
    """Options that apply to a name on the Hub are given for a local model."""

    def __init__(self, options: list[str]) -> None:
        self.options = options
        super().__init__(f"{' and '.join(options)} are about models on the Hub", hint="leave them out")


class LockedUpdate(UsageError):
    """``--locked`` and ``--update`` are given together."""

    def __init__(self) -> None:
        super().__init__(
            "--locked and --update contradict each other", hint="llama-runner lock --update moves the lock"
        )


class ProgramsRequest:
    """One call that asks for llama.cpp's programs: its options, and the facts that their graph is built from."""

    def __init__(
        self,
        keywords: RunnerKeywords,
        *,
        store: Store,
        sink: Sink,
        remotes: Opened | None = None,
        needs_programs: bool = True,
    ) -> None:
        """Find the facts: reads the disk, and may start processes and ask networks.

        ``remotes`` are the remote stores of earlier requests. Without ``needs_programs`` a missing compiler is an error
        only once something is made with the programs.
        """
        self.keywords = keywords = checked(keywords)
        self._store, self._sink = store, sink
        self.locked: LockedModel | None = None
        self.offline = keywords.get("offline", False) or is_offline(os.environ)
        self.wanted = binaries_options_of(keywords)
        self.remote = remote_store_of(
            keywords, os.environ, sink, offline=self.offline, opened={} if remotes is None else remotes
        )
        try:
            self.program_facts = find_program_facts(
                self.wanted,
                environment=os.environ,
                store=store,
                update=keywords.get("update", False),
                offline=self.offline,
                notice=lambda what, text: sink(Noticed(what, text)),
                known_compilers=None if self.remote is None else self.remote.compilers,
            )
        except ToolError as error:
            if needs_programs:
                raise
            self.program_facts = missing_programs(error)

    def settle(self) -> None:
        """Remember what was found, now that everything is made."""


class Request(ProgramsRequest):
    """One call that asks for a model: its options, and the facts that its graph is built from."""

    def __init__(
        self,
        model: str | Path | None,
        keywords: RunnerKeywords,
        *,
        store: Store,
        sink: Sink,
        remember: bool,
        locked: LockedModel | None = None,
        remotes: Opened | None = None,
        needs_programs: bool = True,
    ) -> None:
        """Find the facts. Asks the Hub only about what is not known; writes only to ``remember`` the answer.

        ``locked`` is the entry of a lock file that nothing may differ from; else the options name the file.
        """
        model, keywords = with_demo(model, keywords)
        super().__init__(keywords, store=store, sink=sink, remotes=remotes, needs_programs=needs_programs)
        keywords = self.keywords
        if keywords.get("platform") not in (None, hardware.platform_tag()):
            raise other_platform_error("what is to be run here", str(keywords["platform"]))
        self._remember = remember
        source = self._stored(model) or self._opened(model)
        check_not_adapter(source)
        self.locked = locked
        self._lock_file: Path | None = None
        if keywords.get("locked") or keywords.get("lock_file"):
            self._find_locked(source)
        self._resolver: Resolver | None = None
        found, hub = self._resolved(source)
        self.facts: ModelFacts = find_model_facts(
            found,
            tuning=quantize_options_of(keywords),
            adapters=self._adapters(),
            converter=keywords.get("converter", "auto"),
            projector=keywords.get("mmproj", False),
            trusted=keywords.get("trust_remote_code", False),
            hub=hub,
        )
        quantization = keywords.get("quantization") if hub is None else getattr(found, "quantization", None)
        self.options = options_of(keywords, quantization)

    def _adapters(self) -> tuple[RequestedAdapter, ...]:
        """Return the LoRA adapters that the options name."""
        if not (named := self.keywords.get("lora", ())):
            return ()
        from llama_runner.request.requested_adapters import open_adapters  # noqa: PLC0415 - few models have any

        return open_adapters(named, self._store.root, self._fetched_adapter)

    def _fetched_adapter(self, name: HubName) -> tuple[HubAdapter, Hub]:
        from llama_runner.sources.hub.adapters import resolve_adapter  # noqa: PLC0415 - as above

        resolver = self._resolver = self._resolver or self._make_resolver()
        found = resolve_adapter(resolver, name)
        return found, self._hub(resolver, found.pin)

    def _hub(self, resolver: Resolver, pin: Pin) -> Hub:
        return Hub(pin, lambda: resolver.access, lambda file: self._candidates(resolver, pin, file))

    def settle(self) -> None:
        """See ``ProgramsRequest``: from now on a name that was updated means what it means on the Hub."""
        if self._resolver is not None:
            self._resolver.record_names()
        if self._lock_file is not None:
            from llama_runner.store.gc_files_in_use import remember_file  # noqa: PLC0415 - only with --locked

            remember_file(layout.lock_files(self._store.private), self._lock_file)

    def _find_locked(self, source: LocalSafetensors | LocalGguf | HubName) -> None:
        from llama_runner.request.lock_names import find_locked  # noqa: PLC0415 - only with --locked

        if self.keywords.get("update"):
            raise LockedUpdate
        self._lock_file, self.locked = find_locked(source, self.keywords)

    def _opened(self, model: str | Path | None) -> LocalSafetensors | LocalGguf | HubName:
        keywords = self.keywords
        try:
            return open_source(
                model,
                hf_model=keywords.get("hf_model"),
                gguf_path=keywords.get("gguf_path"),
                safetensors_dir=keywords.get("safetensors_dir"),
                demo=keywords.get("demo", False),
            )
        except NotAModel as error:
            from llama_runner.store.name_index import nearest_name  # noqa: PLC0415 - only for mistakes

            raise NotAModel(error.name, nearest_name(self._store.private, error.name)) from None

    def _stored(self, model: str | Path | None) -> LocalSafetensors | LocalGguf | None:
        """Return the model of the store that was imported under this name; None for a path and for other names."""
        is_named = model is not None and not any(self.keywords.get(name) for name in _SOURCES)
        if not is_named or self.keywords.get("update") or not layout.model_names(self._store.private).exists():
            return None
        found = open_named(self._store, str(model), exact=self._is_pinned(str(model)), remember=self._remember)
        if isinstance(found, LocalGguf) and not self.keywords.get("projector", True):
            return found.replace(projector=None)
        return found

    def _is_pinned(self, name: str) -> bool:
        """Whether a name of the Hub was resolved before: without a tag it goes on to mean what it meant."""
        from llama_runner.sources.hub.pins import open_pins  # noqa: PLC0415 - only where names were imported

        return "/" in name and bool(open_pins(self._store.private, lambda _event: None).read(name).pins)

    def _resolved(self, source: LocalSafetensors | LocalGguf | HubName) -> tuple[AnySource, Hub | None]:
        """Return the source, of a name on the Hub with how to fetch it."""
        keywords = self.keywords
        if isinstance(source, (LocalSafetensors, LocalGguf)):
            names = ("filename", "pattern", "max_size", "fit_memory", "update", "token_file")
            if given := [f"--{name.replace('_', '-')}" for name in names if keywords.get(name)]:
                raise OnlyForHub(given)
            return source, None
        self._resolver = resolver = self._make_resolver()
        own_making = (
            quantize_options_of(keywords) != QuantizeOptions()
            or keywords.get("mmproj")
            or keywords.get("converter") == "official"
        )
        at = None
        if self.locked is not None:
            from llama_runner.request.lock_names import locked_commit  # noqa: PLC0415 - only with --locked

            at = locked_commit(self.locked, source)
        found = resolver.resolve(source, self._wish(), own_making=bool(own_making), locked=at)
        return found, self._hub(resolver, found.pin)

    def _make_resolver(self) -> Resolver:
        from llama_runner.sources.hub.resolver import Resolver  # noqa: PLC0415 - only for names on the Hub

        return Resolver(
            self._store.private,
            access=self.hub_access,
            sink=self._sink,
            offline=self.offline,
            update=self.keywords.get("update", False),
            remember=self._remember,
            choose=self._choose,
            describe=self._describe,
        )

    def _describe(
        self, directory: Path, choice: ConverterChoice, vocabulary: bool
    ) -> tuple[int | None, tuple[str, ...]]:
        """Return the context length, and the weights that the index names, before they are fetched."""
        pre_tokenizer = self.keywords.get("pre_tokenizer") if vocabulary else None
        return official_script.describe(directory, choice, vocabulary=vocabulary, pre_tokenizer=pre_tokenizer)

    def _choose(
        self, directory: Path, has: Callable[[str], bool]
    ) -> tuple[ConverterChoice, CheckpointQuantization | None]:
        """Return who converts the model that a directory describes, and how its weights are stored.

        The directory may hold some files of the model only.
        """
        keywords, described = self.keywords, ModelDirectory(directory)
        choice = choose_converter(
            described,
            keywords.get("converter", "auto"),
            projector=keywords.get("mmproj", False),
            trusted=keywords.get("trust_remote_code", False),
            has=has,
        )
        return choice, read_quantization(described.config)

    def _wish(self) -> FileCriteria:
        from llama_runner.sources.hub.file_selection import FileCriteria  # noqa: PLC0415 - only for names on the Hub

        keywords = self.keywords
        sizes = [keywords.get("max_size")]
        if keywords.get("fit_memory"):
            sizes.append(hardware.model_budget())
        return FileCriteria(
            quantization=keywords.get("quantization"),
            filename=keywords.get("filename"),
            pattern=keywords.get("pattern"),
            max_size=min((size for size in sizes if size is not None), default=None),
            projector=keywords.get("projector", True),
        )

    def hub_access(self) -> Access:
        """Return endpoint and token of the Hub."""
        from llama_runner.sources.hub.endpoint_and_token import find_access  # noqa: PLC0415 - not on the warm path

        file = self.keywords.get("token_file")
        return find_access(
            os.environ,
            token_file=None if file is None else layout.user_path(file),
            notice=lambda what, text: self._sink(Noticed(what, text)),
        )

    def _candidates(self, resolver: Resolver, pin: Pin, file: RemoteFile) -> Iterator[Path]:
        """Yield files on this machine that may hold these bytes: of another revision, of the user's own cache."""
        from llama_runner.sources.hub.hf_cache import find_cached  # noqa: PLC0415 - not on the warm path

        described = resolver.description_directory(pin) / file.name
        if described.is_file():
            yield described
        if file.sha256 is not None:
            yield from self._store.find_downloads(file.sha256, pin.revisions_pattern)
        if cached := find_cached(pin, file, os.environ):
            yield cached


def with_demo(model: str | Path | None, keywords: RunnerKeywords) -> tuple[str | Path | None, RunnerKeywords]:
    """Return model and keywords, for ``demo`` or ``demo:QUANT``, the names of the demo model, with ``demo`` set."""
    name = str(model)
    if name.partition(":")[0] != "demo" or layout.user_path(name).exists():
        return model, keywords
    quantization = keywords.get("quantization") or name.partition(":")[2] or None
    return None, {**keywords, "demo": True, "quantization": quantization}
