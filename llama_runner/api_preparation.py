"""``Maker``: the part of ``Runner`` that plans and makes models and programs; it starts no server."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

from llama_runner.api_management import Management
from llama_runner.core.option_values import wrong_value_error
from llama_runner.request.binaries_graph import programs_graph_of
from llama_runner.request.check_method_arguments import public_method
from llama_runner.request.copy_to_output import check_output, copied
from llama_runner.request.make_launch_spec import spec_for
from llama_runner.request.pipeline_graph import NothingToMake, graph_of
from llama_runner.request.plan_and_execute import Preparation
from llama_runner.request.resolve_request import ProgramsRequest, Request
from llama_runner.request.result_types import BuildResult, ModelFile, PlanResult, Prepared
from llama_runner.request.results_of_graph import (
    forecast_of,
    made_of,
    made_programs_of,
    path_of,
    prepared_of,
)
from llama_runner.serving.check_before_launch import checked
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.serving.port_check import check_users
from llama_runner.store import layout

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Unpack

    from llama_runner.config.config import Config
    from llama_runner.config.parsed_tables import Settings
    from llama_runner.config.prepare_declared_models import Deployment
    from llama_runner.generate.generated_files import Generated, GenerateOptions, Target
    from llama_runner.library.artifact_history import History
    from llama_runner.library.lock_check import LockCheck
    from llama_runner.recommend.choose_quantization import Recommendation
    from llama_runner.request.compare_with_original import CheckResult
    from llama_runner.request.lock_models import LockResult
    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.request.request_keywords import RunnerKeywords


class Maker(Management):
    """A root with the pipeline: plan, prepare, make, lock."""

    @public_method
    def plan(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        **keywords: Unpack[RunnerKeywords],
    ) -> PlanResult:
        """Return which steps ``serve`` would run, and why. Writes nothing.

        Raises what ``serve`` would say of the options of ``server`` before any work, where the programs are here.
        """
        model, server, keywords = self._declared(model, server, keywords)
        if server is not None:
            check_users(server)
        request = self._request(model, keywords, remember=False)
        graph = graph_of(request)
        plan = self._preparation.plan(request, graph)
        self._preparation.check_options(graph, plan, server)
        spec = spec_for(forecast_of(self.store, graph, plan), server)
        if not (request.offline and plan.pending):
            return PlanResult(graph, plan, spec)
        from llama_runner.request.offline_check import missing  # noqa: PLC0415 - not on the warm path

        return PlanResult(graph, plan, spec, missing(plan))

    @public_method
    def check(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        **keywords: Unpack[RunnerKeywords],
    ) -> PlanResult:
        """Raise the error that ``serve`` would end with, as far as it is known before any work; return the plan.

        These are: what ``plan`` raises, what is missing offline, and, where all is here, whether memory suffices. The
        port is not tried.
        """
        model, server, keywords = self._declared(model, server, keywords)
        check_users(server or ServerOptions())
        forecast = self.plan(model, server=server, **keywords)
        if forecast.missing:
            from llama_runner.request.offline_check import check_offline  # noqa: PLC0415 - not on the warm path

            check_offline(forecast.plan)
        if forecast.plan.pending:
            from llama_runner.request.fits_machine_check import check_size  # noqa: PLC0415 - not on the warm path

            check_size(forecast.pipeline, server or ServerOptions())
        else:
            checked(forecast.spec, self.store.private, self._sink)
        return forecast

    @public_method
    def prepare(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        **keywords: Unpack[RunnerKeywords],
    ) -> Prepared:
        """Make what is missing, and return where everything is.

        What ``server`` passes on to llama-server is tried on the programs before a model is fetched or made.
        """
        model, server, keywords = self._declared(model, server, keywords)
        began = time.monotonic()
        resolve = partial(self._request, model, keywords)
        graph, plan, outcome = self._preparation.make(resolve, graph_of, server=server)
        prepared = prepared_of(self.store, graph, plan, outcome)
        if prepared.adapters:
            from llama_runner.request.adapter_check import check_adapters  # noqa: PLC0415 - few models have any

            check_adapters(prepared, graph.adapter_bases, self._sink)
        return prepared.replace(seconds=round(time.monotonic() - began, 3))

    @public_method
    def make(
        self, model: str | Path | None = None, *, output: str | Path | None = None, **keywords: Unpack[RunnerKeywords]
    ) -> list[ModelFile]:
        """Make the model files that are asked for, without what serving them needs; copy the first to ``output``.

        An output that ends with a slash is a directory, in which the copy is named after the model.
        """
        model, _, keywords = self._declared(model, None, keywords)

        def checked_graph(request: Request) -> Pipeline:
            graph = graph_of(request)
            if graph.model is None:
                raise NothingToMake(str(path_of(graph.source)))
            if output is not None:
                check_output(graph, output, self.root)
            return graph

        resolve = partial(self._request, model, keywords)
        graph, _, outcome = self._preparation.make(
            resolve, checked_graph, lambda graph: (*graph.files, *graph.measured)
        )
        files = made_of(self.store, graph, outcome)
        return files if output is None else copied(self.store, graph, files, output)

    @public_method
    def deployment(
        self, *names: str, config: Config | str | os.PathLike[str] | None = None, locked: bool = False
    ) -> Deployment:
        """Return the models that a configuration file declares, to plan and prepare them together.

        ``names`` are some of them; none means all. ``config`` defaults to that of the ``Runner``. With ``locked``
        nothing may differ from the lock file.
        """
        from llama_runner.config.prepare_declared_models import Deployment  # noqa: PLC0415 - not on the warm path

        return Deployment(
            self._configured(config),
            names,
            store=self.store,
            sink=self._sink,
            remotes=self._remotes,
            profile=self._profile,
            locked=locked,
            lock_timeout=self._lock_timeout,
        )

    @public_method
    def recommend(
        self,
        model: str | Path | None = None,
        *,
        context: int | None = None,
        memory: int | None = None,
        **keywords: Unpack[RunnerKeywords],
    ) -> Recommendation:
        """Return which quantization, context and cache type suit this machine, with memory and speed of each.

        Fetches no weights. ``context`` is the number of tokens that must fit; by default 4096, or what the model was
        trained for if that is less. ``memory`` is the number of bytes to plan with instead of what is available.
        """
        from llama_runner.recommend.make_recommendation import recommend  # noqa: PLC0415 - not on the warm path

        model, _, keywords = self._declared(model, None, keywords)
        return recommend(model, keywords, store=self.store, sink=self._sink, context=context, memory=memory)

    @public_method
    def preset(self, name: str, *, model: str | Path | None = None, memory: int | None = None) -> Settings:
        """Return the preset of a name, built in or of the configuration, with the numbers for ``model`` if it is given.

        ``memory`` is as for ``recommend``. Raises ``UsageError`` for a name that no preset has.
        """
        from llama_runner.config.presets import MachineFacts, for_machine, preset_of  # noqa: PLC0415 - as above

        preset = preset_of(name, self.presets())
        if model is None:
            return preset
        found = self.recommend(model, memory=memory)
        return for_machine(preset, MachineFacts(found.free, max(1, found.kv_bytes), found.trained_context))

    @public_method
    def check_model(
        self,
        model: str | Path | None = None,
        *,
        original: str | Path | None = None,
        against_original: bool = False,
        **keywords: Unpack[RunnerKeywords],
    ) -> CheckResult:
        """Compare a model file with its original: tokens, chat template, special tokens. Makes what is missing.

        With ``against_original`` also the logits, computed by transformers in 32 bits: the environment of llama.cpp's
        own converter is made for that, and the original needs memory for four bytes a weight.
        ``original`` is that of a GGUF model: a directory, or a name on the Hub; by default the repository that its
        model card names. Of a model on the Hub only small files are fetched. The result is recorded.
        """
        from llama_runner.request.compare_with_original import ModelChecker  # noqa: PLC0415 - not on the warm path

        model, _, keywords = self._declared(model, None, keywords)
        return ModelChecker(self.store, self._sink, lock_timeout=self._lock_timeout).check(
            model, keywords, original, against_original=against_original
        )

    @public_method
    def lock(self, *models: str | Path, **keywords: Unpack[RunnerKeywords]) -> LockResult:
        """Prepare models and write commit, recipes, tools and digests of each into a lock file.

        ``lock_file`` defaults to ``llama-runner.lock`` in the working directory. A model that is locked already stays
        as it is; with ``update`` it is resolved and made anew. The keywords are for each of the models; without
        ``models`` they name one, as those of ``plan`` do.
        """
        from llama_runner.request.lock_models import Locker  # noqa: PLC0415 - not on the warm path

        locker = Locker(self._preparation, self.store, self._sink, keywords.get("lock_file"))
        return locker.lock([self._declared(model, None, keywords)[::2] for model in models or (None,)])

    @public_method
    def check_lock(self, *names: str, lock_file: str | Path | None = None, offline: bool = False) -> LockCheck:
        """Compare a lock file with the store, the programs of this machine and, unless ``offline``, the Hub.

        ``names`` are those in the file; none means all. ``lock_file`` defaults to the nearest ``llama-runner.lock``.
        """
        from llama_runner.library.lock_check import LockChecker  # noqa: PLC0415 - not on the warm path
        from llama_runner.request.lock_names import lock_file_path, opened  # noqa: PLC0415
        from llama_runner.system.network_settings import is_offline  # noqa: PLC0415

        lock = opened(lock_file_path({"lock_file": lock_file}))
        offline = offline or is_offline(os.environ)
        return LockChecker(self.store, self._sink, self._preparation, offline=offline).check(lock, names)

    @public_method
    def why(self, name: str) -> History:
        """Return the history of a model file: how it was made, what used it, what would make its steps run again.

        ``name`` is as for ``models.show``, with ``:QUANT`` where there are several files. Uses no network.
        """
        from llama_runner.library.artifact_history import history_of  # noqa: PLC0415 - not on the warm path

        inventory, lineage = self.models.lineage(name)
        return history_of(inventory, lineage, self.plan, self._sink)

    @public_method
    def generate(
        self,
        target: Target,
        *names: str,
        config: Config | str | os.PathLike[str] | None = None,
        options: GenerateOptions | None = None,
    ) -> Generated:
        """Return the files that run declared models elsewhere; ``Generated.write`` writes them.

        ``target`` is ``compose``, ``quadlet``, ``kubernetes``, ``systemd`` or ``dockerfile``. ``names`` are those of
        the configuration file; none means all. ``config`` defaults to that of the ``Runner``. Uses no network.
        ``CannotGenerate`` for what cannot run there.
        """
        from llama_runner.generate.generated_files import GenerateOptions, generate  # noqa: PLC0415 - not on the warm path
        from llama_runner.generate.memory_need import known_memory  # noqa: PLC0415

        quietly = Maker(self.root)
        memory = partial(known_memory, quietly.plan, layout.memory_needs(self.store.private))
        found = None if target == "dockerfile" else self._configured(config)
        if options is not None and not isinstance(options, GenerateOptions):
            raise wrong_value_error("options", "GenerateOptions", options)
        return generate(target, found, names, options or GenerateOptions(), memory)

    @public_method
    def make_programs(self, **keywords: Unpack[RunnerKeywords]) -> BuildResult:
        """Make llama.cpp's programs, without a model."""
        began = time.monotonic()
        resolve = partial(ProgramsRequest, keywords, store=self.store, sink=self._sink, remotes=self._remotes)
        programs, _, outcome = self._preparation.make(resolve, programs_graph_of)
        return made_programs_of(self.store, programs, outcome).replace(seconds=time.monotonic() - began)

    def _request(self, model: str | Path | None, keywords: RunnerKeywords, *, remember: bool = True) -> Request:
        return Request(model, keywords, store=self.store, sink=self._sink, remember=remember, remotes=self._remotes)

    def _declared(
        self, model: str | Path | None, server: ServerOptions | None, keywords: RunnerKeywords
    ) -> tuple[str | Path | None, ServerOptions | None, RunnerKeywords]:
        """Return the source and the options of a model that the configuration declares; of any other as they are."""
        config = self.config
        if config is None or not isinstance(model, str) or config.find(model) is None:
            return model, server, keywords
        return config.resolved(model, self._profile).over(server, keywords)

    def _profile(self, name: str) -> dict[str, str]:
        from llama_runner.serving import tuned_profiles  # noqa: PLC0415 - only for a declared model

        return tuned_profiles.read(layout.profiles(self.root), name)

    @property
    def _preparation(self) -> Preparation:
        return Preparation(self.store, self._sink, lock_timeout=self._lock_timeout)
