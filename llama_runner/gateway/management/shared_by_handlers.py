"""What the handlers of the management API share: the gateway, its jobs, and calls of ``Runner``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.core.immutable_values import Value
from llama_runner.gateway.errors import BadRequest, GatewayError, UnknownModel, gateway_error
from llama_runner.gateway.ollama_names import find_name
from llama_runner.gateway.start_runner_call_worker import Question, Workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from llama_runner.api import Runner
    from llama_runner.gateway.created_models import CreatedStore
    from llama_runner.gateway.event_log import EventLog
    from llama_runner.gateway.gateway import Gateway
    from llama_runner.gateway.jobs import Jobs
    from llama_runner.gateway.ollama_downloads import Downloads

Json = dict[str, Any]


class Process(Value, eq=False):
    """What the process of the gateway says of itself."""

    config: Path | None = None
    """The configuration file."""
    urls: Callable[[], list[str]] = list
    """Returns the addresses that it listens at."""
    reload: Callable[[], Awaitable[None]] | None = None
    """Reads the configuration again. Raises what is wrong with it."""


class NoConfiguration(GatewayError):
    """This gateway has no configuration file."""

    status = 404
    kind = "no_configuration"
    permanent = True

    def __init__(self) -> None:
        super().__init__("this gateway was started without a configuration file")


class Manager:
    """The gateway as the handlers of the management API use it."""

    def __init__(
        self, gateway: Gateway, created: CreatedStore, downloads: Downloads, jobs: Jobs, process: Process
    ) -> None:
        self.gateway, self.created, self.downloads, self.jobs = gateway, created, downloads, jobs
        self.process = process
        self._workers = Workers()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def events(self) -> EventLog:
        """The log of events."""
        return self.gateway.events

    @property
    def config(self) -> Path:
        """The configuration file; ``NoConfiguration``."""
        if self.process.config is None:
            raise NoConfiguration
        return self.process.config

    def runner(self) -> Runner:
        """Return a ``Runner`` that reads the configuration anew."""
        from llama_runner.api import Runner  # noqa: PLC0415 - the gateway listens before the pipeline is loaded

        return Runner(self.gateway.root, config=self.process.config)

    def question(self, call: str, **arguments: Any) -> Question:  # noqa: ANN401 - JSON
        """Return a call for a worker; see ``runner_call_worker.CALLS``."""
        return Question(root=self.gateway.root, call=call, arguments=arguments, config=self.process.config)

    async def ask(self, call: str, **arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """Make a call of ``Runner`` in a process and return its result. Raises ``CallFailed``."""
        return await self._workers.call(self.question(call, **arguments))

    async def thread(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the work returns
        """Run in a thread what reads small files. Raises a ``GatewayError`` for an error of the library."""
        try:
            return await asyncio.to_thread(work)
        except LlamaRunnerError as error:
            raise gateway_error(error) from error
        except RecursionError:  # a key of a thousand parts, or a TOML text with one
            raise BadRequest("the request is nested too deeply") from None

    def spawn(self, work: Awaitable[Any]) -> None:
        """Do something in the background; what goes wrong is told by events."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self) -> bool:
        """Serve what the configuration says now; False where this gateway reads none. Raises what is wrong with it."""
        if self.process.reload is None:
            return False
        try:
            await self.process.reload()
        except LlamaRunnerError as error:
            raise gateway_error(error) from error
        return True

    def served_name(self, name: str) -> str:
        """Return the name under which a model is served. Raises ``UnknownModel``."""
        found = find_name(name, self.gateway.catalogue.served)
        if found is None:
            raise UnknownModel(name, [each.name for each in self.gateway.listed()])
        return found

    def close(self) -> None:
        """End what runs in the background, and let the readers of events end."""
        for task in self._tasks:
            task.cancel()
        self.events.close()
