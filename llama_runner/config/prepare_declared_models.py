"""``Deployment``: the declared models of one configuration, planned and prepared together."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.config.edit import write_new
from llama_runner.config.errors import no_models_error
from llama_runner.config.files_for_gc import remember_config
from llama_runner.config.find import FILE_NAME
from llama_runner.core.errors import LlamaRunnerError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.request.lock_file import NAME as LOCK_FILE
from llama_runner.request.make_launch_spec import spec_for
from llama_runner.request.plan_text import why_text
from llama_runner.request.prepare_models_together import JointPreparation, check_together
from llama_runner.request.resolve_request import Request
from llama_runner.request.results_of_graph import forecast_of
from llama_runner.serving import find_and_stop, gateway_process, server_log, server_registry
from llama_runner.serving.listed_server import ServerEntry
from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from llama_runner.config.config import Config
    from llama_runner.config.layers import Resolved
    from llama_runner.core.events import Sink
    from llama_runner.request.prepare_models_together import JointPlan
    from llama_runner.request.remote_stores import Opened
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.request.result_types import Prepared
    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.store.artifacts import Store

NEW_CONFIG = "# Written by llama-runner ui. Models that this file declares are served by the gateway.\n"


class DeploymentPlan(Value):
    """What would run for the models together, and what would be launched for each."""

    joint: JointPlan
    launches: Mapping[str, ServerSpec]

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``up --dry-run --json``."""
        plan = self.joint.plan
        return {
            "steps": [
                {
                    "name": planned.step.kind,
                    "action": planned.action,
                    "key": planned.key,
                    "output": None if planned.place is None else str(planned.place).rstrip("/"),
                    "models": self.joint.needed_by(planned.step),
                    "why": why_text(planned),
                }
                for planned in plan.steps
            ],
            "needs": {"fetch": plan.estimate.fetch, "disk": plan.estimate.disk},
            "launch": {name: {"argv": spec.argv()} for name, spec in self.launches.items()},
        }


def locked_keywords(config: Config, keywords: RunnerKeywords) -> RunnerKeywords:
    """Return the keywords of a model that obeys the lock file: the one beside the configuration, or the nearest one."""
    beside = config.path.with_name(LOCK_FILE)
    return {**keywords, "locked": True, **({"lock_file": beside} if beside.exists() else {})}


class Deployment:
    """Declared models in one store."""

    def __init__(
        self,
        config: Config,
        names: Iterable[str] = (),
        *,
        store: Store,
        sink: Sink,
        remotes: Opened,
        profile: Callable[[str], Mapping[str, str]],
        locked: bool = False,
        lock_timeout: float,
    ) -> None:
        """``names`` are declared names or aliases; none means all. Raises ``UsageError`` for unknown ones.

        ``profile`` returns what ``tune`` saved under a name. With ``locked`` nothing may differ from the lock file.
        """
        chosen = [config.model(name).name for name in names] or list(config.models)
        if not chosen:
            raise no_models_error(config.path)
        self.config, self.locked = config, locked
        self._store, self._sink, self._remotes = store, sink, remotes
        self._preparation = JointPreparation(store, sink, lock_timeout=lock_timeout)
        self.models: dict[str, Resolved] = {name: config.resolved(name, profile) for name in dict.fromkeys(chosen)}

    def keywords(self, name: str) -> RunnerKeywords:
        """Return the keywords of ``Runner.prepare`` for a model."""
        found = self.models[name].keywords
        return locked_keywords(self.config, found) if self.locked else found

    def plan(self) -> DeploymentPlan:
        """Return what would run and be launched. Writes nothing."""
        return self._planned(self._requests(remember=False))

    def check(self) -> DeploymentPlan:
        """Raise the error that ``prepare`` would end with, as far as it is known before any work; return the plan."""
        requests = self._requests(remember=False)
        found = self._planned(requests)
        if found.joint.plan.pending:
            check_together(found.joint, requests, {name: each.server for name, each in self.models.items()})
        return found

    def _planned(self, requests: Mapping[str, Request]) -> DeploymentPlan:
        joint = self._preparation.plan_together(requests)
        launches = {}
        for name, graph in joint.graphs.items():
            server, plan = self.models[name].server, joint.part_of([name])
            self._preparation.check_options(graph, plan, server)
            launches[name] = spec_for(forecast_of(self._store, graph, plan), server)
        return DeploymentPlan(joint, launches)

    def prepare(self, prepare_one: Callable[..., Prepared]) -> dict[str, Prepared]:
        """Make what the models need, what they share once; return where everything of each is.

        ``prepare_one`` is ``Runner.prepare``. With ``locked`` each model is made by itself, as nothing that differs
        from the lock file may be published.
        """
        remember_config(self._store.private, self.config)
        if len(self.models) > 1 and not self.locked:
            servers = {name: each.server for name, each in self.models.items()}
            self._preparation.make_together(self._requests(remember=True), servers)
        return {
            name: prepare_one(each.source, server=each.server, **self.keywords(name))
            for name, each in self.models.items()
        }

    def _requests(self, *, remember: bool) -> dict[str, Request]:
        return {
            name: Request(
                each.source,
                self.keywords(name),
                store=self._store,
                sink=self._sink,
                remember=remember,
                remotes=self._remotes,
            )
            for name, each in self.models.items()
        }

    @property
    def is_one_server(self) -> bool:
        """Whether the models are served by one llama-server alone, without the gateway."""
        return len(self.models) == 1

    @property
    def servers(self) -> Path:
        """Where the servers that run are written down."""
        return layout.servers(self._store.private)

    def running(self) -> list[dict[str, Any]]:
        """Return the entries of the servers and gateways that run for this configuration."""
        return [
            about for about in server_registry.running(self.servers) if about.get("config") == str(self.config.path)
        ]

    def gateway_arguments(self, listen: Iterable[str] = (), *, log_prompts: bool = False) -> list[str]:
        """Return the arguments of ``python -m llama_runner.gateway`` for these models, with a new log."""
        words = ["--config", str(self.config.path), "--root", str(self._store.root), "--log", server_log.new_name()]
        words += [f"--listen={address}" for address in listen]
        words += ["--locked"] if self.locked else []
        words += ["--log-prompts"] if log_prompts else []
        return [*words, *(f"--model={name}" for name in self._only)]

    @property
    def _only(self) -> list[str]:
        """The models, where they are not all that the file declares."""
        return [] if len(self.models) == len(self.config.models) else list(self.models)

    def start_gateway(
        self, listen: Iterable[str] = (), cancelled: Callable[[], bool] = lambda: False, *, log_prompts: bool = False
    ) -> ServerEntry:
        """Start the gateway in the background, or let the one that runs read the file again.

        One that serves other models of the file, at other addresses, with another ``locked`` or ``log_prompts``, is
        stopped first.
        """
        listen = list(listen)
        for about in gateway_process.gateways(self.servers, self.config.path):
            same = about.get("only") == self._only and about.get("locked") == self.locked
            same = same and about.get("log_prompts", False) == log_prompts
            if same and (not listen or about.get("listen") == listen):
                return gateway_process.reload_gateway(self.servers, about)
            find_and_stop.stop(self.servers, str(about["pid"]), self._sink)
        arguments = [*self.gateway_arguments(listen, log_prompts=log_prompts), "--detached"]
        log = self._store.root / arguments[arguments.index("--log") + 1]
        log.parent.mkdir(parents=True, exist_ok=True)
        return gateway_process.start_gateway(arguments, log=log, directory=self.servers, cancelled=cancelled)


def gateway_of_page(
    path: Path | None,
    store: Store,
    *,
    listen: Iterable[str] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> ServerEntry:
    """Return the entry of the gateway of a configuration; start one in the background where none runs.

    Without a configuration an empty one is written to the root: the page adds models by itself.
    """
    servers = layout.servers(store.private)
    if path is None:
        path = store.root / FILE_NAME
        with suppress(UsageError):  # another process was faster
            write_new(path, NEW_CONFIG)
    if running := gateway_process.gateways(servers, path):
        return ServerEntry(running[0])
    name = server_log.new_name()
    words = ["--config", str(path), "--root", str(store.root), "--log", name, "--detached"]
    words += [f"--listen={address}" for address in listen]
    log = store.root / name
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        return gateway_process.start_gateway(words, log=log, directory=servers, cancelled=cancelled)
    except LlamaRunnerError:
        if running := gateway_process.gateways(servers, path):  # as above
            return ServerEntry(running[0])
        raise
