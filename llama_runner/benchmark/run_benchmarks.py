"""Measures servers and programs, keeps the results, and looks for the fastest options of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from llama_runner.benchmark import history, llama_bench
from llama_runner.benchmark.load_generator import Load, run_load, send_request
from llama_runner.benchmark.results import BenchTest, Level, ProgramFigures, ServerFigures, TuneResult
from llama_runner.benchmark.statistics import figures
from llama_runner.benchmark.tune import axes, search
from llama_runner.core.errors import ServerError
from llama_runner.request.check_method_arguments import public_method
from llama_runner.request.running_model import named_server
from llama_runner.serving import tuned_profiles
from llama_runner.serving.client_for_model import NOT_SHARED, client_at, client_of, may_share, text_server
from llama_runner.store import layout
from llama_runner.system import hardware
from llama_runner.system.utc_time import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from typing_extensions import Unpack

    from llama_runner.benchmark.tune import Settings
    from llama_runner.client.sync_client import Client, Requests
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.request.result_types import Prepared
    from llama_runner.serving.llama_server.launch_spec import ServerOptions
    from llama_runner.serving.server_process import Server
    from llama_runner.store.artifacts import Store

_Result = TypeVar("_Result", ServerFigures, ProgramFigures)
_KEEPABLE = "use a root that can be written"


def _ignore(*_arguments: object) -> None:
    """Take what happens and do nothing."""


class Benchmarks:
    """Measurements of the models of one root. ``Runner.benchmarks`` makes it.

    ``prepare`` and ``launch`` are those of ``Runner``. A result that cannot be kept is a ``CannotKeep`` whose
    ``result`` has it.
    """

    def __init__(self, store: Store, prepare: Callable[..., Prepared], launch: Callable[..., Server]) -> None:
        self._store, self._prepare, self._launch = store, prepare, launch

    @public_method
    def bench(
        self,
        model: str | Path | None = None,
        *,
        concurrency: Sequence[int] = (1, 2, 4, 8),
        load: Load | None = None,
        server: ServerOptions | None = None,
        on_level: Callable[[Level], object] = _ignore,
        **keywords: Unpack[RunnerKeywords],
    ) -> ServerFigures:
        """Start a server, measure it with each number of clients at once, end it, and keep the result.

        Where ``model`` names a server that runs, and is neither a path nor a name on the Hub, that one is measured.
        ``on_level`` gets the figures of each level as they come. The server listens on a free port by default.
        """
        options = text_server(server)
        if (
            may_share(options)
            and (about := named_server(self._servers, model, keywords, for_hub_names=False)) is not None
        ):
            return self._bench_running(client_of(about), concurrency, load, on_level)
        prepared = self._prepare(model, server=options, **keywords)
        name, digests = self._identity(prepared)
        with self._launch(prepared, server=options, about=NOT_SHARED) as started:
            argv = started.spec.argv()[1:]
            return self._bench(started, name, digests, argv, concurrency, load or Load(), on_level)

    @public_method
    def bench_url(
        self,
        url: str,
        *,
        api_key: str | None = None,
        concurrency: Sequence[int] = (1, 2, 4, 8),
        load: Load | None = None,
        on_level: Callable[[Level], object] = _ignore,
    ) -> ServerFigures:
        """Measure a server that runs at ``url``, and keep the result. ``api_key`` defaults to ``LLAMA_API_KEY``."""
        if api_key is None:
            return self._bench_running(client_at(self._servers, url), concurrency, load, on_level)
        from llama_runner.client.sync_client import Client  # noqa: PLC0415 - only here

        return self._bench_running(Client(url, api_key=api_key), concurrency, load, on_level)

    def _bench_running(
        self,
        running: AbstractContextManager[Client],
        concurrency: Iterable[int],
        load: Load | None,
        on_level: Callable[[Level], object],
    ) -> ServerFigures:
        with running as client:
            props = client.props()
            model, binary = {"name": props.model, "digest": props.path}, {"build": props.build, "digest": None}
            return self._bench(client, model, binary, None, concurrency, load or Load(), on_level)

    @property
    def _servers(self) -> Path:
        return layout.servers(self._store.private)

    def _bench(
        self,
        server: Requests,
        model: dict[str, Any],
        binary: dict[str, Any],
        argv: list[str] | None,
        concurrency: Iterable[int],
        load: Load,
        on_level: Callable[[Level], object],
    ) -> ServerFigures:
        send_request(server, load, 0)  # the first request pays for what all others find ready
        at, levels = utc_text(), []
        for clients in concurrency:
            samples, seconds = run_load(server, load, clients)
            levels.append(Level(**figures(samples, clients, seconds)))
            on_level(levels[-1])
        machine, asked = history.describe_machine(), dict(load.__dict__)
        return self._keep(ServerFigures(at, machine, asked, model, binary, argv, levels=tuple(levels)))

    @public_method
    def bench_programs(
        self,
        model: str | Path | None = None,
        *,
        options: Sequence[str] = (),
        threads: int | None = None,
        gpu_layers: int | str | None = None,
        on_test: Callable[[BenchTest], object] = _ignore,
        **keywords: Unpack[RunnerKeywords],
    ) -> ProgramFigures:
        """Measure the programs without a server, by llama-bench, and keep the result.

        ``options`` are llama-bench's own and take the place of ``threads`` and ``gpu_layers``. ``on_test`` gets the
        figures of each test as they come. ``ToolError`` where the programs have no llama-bench.
        """
        words = llama_bench.bench_arguments(options, threads or hardware.physical_cores(), gpu_layers)
        prepared = self._prepare(model, **keywords)
        named, binary = self._identity(prepared)
        program = prepared.server.with_name(f"llama-bench{prepared.server.suffix}")
        at = utc_text()
        tests = llama_bench.measure(
            program,
            prepared.model,
            words,
            root=self._store.root,
            on_test=lambda test: on_test(BenchTest(**test)),
        )
        load, found = {"llama-bench": list(options)}, tuple(BenchTest(**test) for test in tests)
        return self._keep(ProgramFigures(at, history.describe_machine(), load, named, binary, words, tests=found))

    @public_method
    def tune(
        self,
        model: str | Path | None = None,
        *,
        name: str | None = None,
        budget: float = 300.0,
        kv_types: Iterable[str] = ("q8_0",),
        clients: int = 1,
        load: Load | None = None,
        server: ServerOptions | None = None,
        on_try: Callable[[Settings, float | None], object] = _ignore,
        **keywords: Unpack[RunnerKeywords],
    ) -> TuneResult:
        """Find the options that make a model fastest here, and keep them as a profile called ``name``.

        ``name`` defaults to that of the model. After ``budget`` seconds nothing new is tried. ``kv_types`` are the
        types of the KV cache to try. ``on_try`` gets settings and their tokens per second, None where the server does
        not run with them.
        """
        options, load = text_server(server), load or Load()
        prepared = self._prepare(model, server=options, **keywords)
        directory = layout.profiles(self._store.root)
        tuned_profiles.check_writable(directory)
        tuned = search(
            axes(options.threads or hardware.physical_cores(), hardware.logical_processors(), list(kv_types)),
            lambda settings: self._score(prepared, tuned_profiles.apply(settings, options), load, clients),
            budget=budget,
            tell=on_try,
        )
        named, binary = self._identity(prepared)
        result = TuneResult(
            name or prepared.alias,
            tuned.settings,
            round(tuned.score, 2),
            round(tuned.default, 2),
            tuned.tried,
            tuned.finished,
            named,
            binary,
            history.describe_machine(),
            utc_text(),
        )
        try:
            path = tuned_profiles.write(directory, result.name, result.settings, result.about())
        except OSError as error:
            raise tuned_profiles.CannotKeep("profile", directory, error, _KEEPABLE, result) from None
        return result.replace(path=path)

    def _score(self, prepared: Prepared, options: ServerOptions, load: Load, clients: int) -> float | None:
        """Return the tokens per second, read and written, of a server with such options; None if it cannot do it."""
        try:
            with self._launch(prepared, server=options, about=NOT_SHARED) as server:
                send_request(server, load, 0)
                samples, seconds = run_load(server, load, clients)
        except ServerError:
            return None
        if any(sample.error for sample in samples):
            return None
        return sum(sample.tokens + sample.prompt_tokens for sample in samples) / seconds

    def _identity(self, prepared: Prepared) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what was measured: the model, and the programs."""
        digest = history.model_digest(self._store, prepared.model)
        binary = history.binary_digest(self._store, prepared.binaries)
        return {"name": prepared.alias, "digest": digest}, {"build": prepared.build.get("build"), "digest": binary}

    def _keep(self, result: _Result) -> _Result:
        document = result.to_json()
        result = result.replace(before=history.latest_comparable(self._store, document))
        try:
            path = history.append_result(self._store, document)
        except OSError as error:
            directory = layout.benchmarks(self._store.private)
            raise tuned_profiles.CannotKeep("result", directory, error, _KEEPABLE, result) from None
        return result.replace(path=path)
