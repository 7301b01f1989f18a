"""Turn any model source into a running llama-server, doing only the work that has not been done."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_runner.api import Runner
    from llama_runner.client.aio import AsyncClient
    from llama_runner.client.sync import Client
    from llama_runner.core.errors import LlamaRunnerError
    from llama_runner.results import Forecast, Made, Prepared
    from llama_runner.server.process import Server
    from llama_runner.server.spec import ServerOptions
    from llama_runner.version import __version__

__all__ = [
    "AsyncClient",
    "Client",
    "Forecast",
    "LlamaRunnerError",
    "Made",
    "Prepared",
    "Runner",
    "Server",
    "ServerOptions",
    "__version__",
]

_WHERE = {
    "AsyncClient": "llama_runner.client.aio",
    "Client": "llama_runner.client.sync",
    "Forecast": "llama_runner.results",
    "LlamaRunnerError": "llama_runner.core.errors",
    "Made": "llama_runner.results",
    "Prepared": "llama_runner.results",
    "Runner": "llama_runner.api",
    "Server": "llama_runner.server.process",
    "ServerOptions": "llama_runner.server.spec",
    "__version__": "llama_runner.version",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whichever it is
    """Load what is asked for: importing the package alone must cost nothing."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_WHERE[name]), name)
