"""Turn any model source into a running llama-server, doing only the work that has not been done."""

# The working directory may still be in sys.path here, and may be a model that somebody else made: nothing is imported
# before it is out, not even of the standard library. Type checkers take this name for that of typing.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from llama_runner.api import Runner
    from llama_runner.client.async_client import AsyncClient
    from llama_runner.client.sync_client import Client
    from llama_runner.core.errors import LlamaRunnerError
    from llama_runner.request.results import Forecast, Made, Prepared
    from llama_runner.serving.llama_server.launch_spec import ServerOptions
    from llama_runner.serving.server_process import Server
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
    "AsyncClient": "llama_runner.client.async_client",
    "Client": "llama_runner.client.sync_client",
    "Forecast": "llama_runner.request.results",
    "LlamaRunnerError": "llama_runner.core.errors",
    "Made": "llama_runner.request.results",
    "Prepared": "llama_runner.request.results",
    "Runner": "llama_runner.api",
    "Server": "llama_runner.serving.server_process",
    "ServerOptions": "llama_runner.serving.llama_server.launch_spec",
    "__version__": "llama_runner.version",
}


def __getattr__(name: str) -> "Any":  # noqa: ANN401 - whichever it is
    """Load what is asked for: importing the package alone must cost nothing."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_WHERE[name]), name)
