"""Turn any model source into a running llama-server, doing only the work that has not been done."""

# The working directory may still be in sys.path here, and may be a model that somebody else made: nothing is imported
# before it is out, not even of the standard library. Type checkers take this name for that of typing.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from llama_runner.api import Runner
    from llama_runner.benchmark.load_generator import Load
    from llama_runner.benchmark.results import BenchTest, Level, ProgramFigures, ServerFigures, TuneResult
    from llama_runner.client.async_client import AsyncClient
    from llama_runner.client.errors import (
        ConnectionLost,
        ContextExceeded,
        KeyRefused,
        RequestFailed,
        RequestRefused,
        StillLoading,
        StrangeAnswer,
        TimedOut,
        Unreachable,
    )
    from llama_runner.client.reply_types import Reply, ReplyChunk
    from llama_runner.client.sync_client import Client, Stream
    from llama_runner.config.config import Config
    from llama_runner.config.errors import ConfigError
    from llama_runner.config.prepare_declared_models import Deployment, DeploymentPlan
    from llama_runner.core.errors import (
        DownloadError,
        ExitCode,
        Interrupted,
        LlamaRunnerError,
        ServerError,
        SourceError,
        StepError,
        StoreError,
        ToolError,
        UsageError,
    )
    from llama_runner.core.events import Event
    from llama_runner.doctor import Diagnosis
    from llama_runner.doctor.self_test import SelfTestResult
    from llama_runner.generate.errors import CannotGenerate
    from llama_runner.generate.generated_files import Generated, GenerateOptions
    from llama_runner.library.artifact_history import History
    from llama_runner.library.lock_check import LockCheck
    from llama_runner.llama_cpp.installed_builds import Build, BuildStore
    from llama_runner.llama_cpp.newer_versions import Updates
    from llama_runner.recommend.choose_quantization import Recommendation
    from llama_runner.request.compare_with_original import CheckResult
    from llama_runner.request.install_service import Service
    from llama_runner.request.lock_differences import LockDiffers
    from llama_runner.request.lock_models import LockResult
    from llama_runner.request.model_inspection import Inspection
    from llama_runner.request.result_types import BuildResult, ModelFile, PlanResult, Prepared
    from llama_runner.serving.async_server import AsyncServer
    from llama_runner.serving.errors import AmbiguousName, NoSuchServer, PortTaken
    from llama_runner.serving.listed_server import ServerEntry
    from llama_runner.serving.llama_server.launch_spec import ServerOptions
    from llama_runner.serving.log_reader import ServerLog
    from llama_runner.serving.running_server import RunningServer
    from llama_runner.serving.server_process import Server
    from llama_runner.serving.tuned_profiles import CannotKeep
    from llama_runner.sources.hub.search import SearchResult
    from llama_runner.status_report import Status
    from llama_runner.version import __version__

__all__ = [
    "AmbiguousName",
    "AsyncClient",
    "AsyncServer",
    "BenchTest",
    "Build",
    "BuildResult",
    "BuildStore",
    "CannotGenerate",
    "CannotKeep",
    "CheckResult",
    "Client",
    "Config",
    "ConfigError",
    "ConnectionLost",
    "ContextExceeded",
    "Deployment",
    "DeploymentPlan",
    "Diagnosis",
    "DownloadError",
    "Event",
    "ExitCode",
    "GenerateOptions",
    "Generated",
    "History",
    "Inspection",
    "Interrupted",
    "KeyRefused",
    "Level",
    "LlamaRunnerError",
    "Load",
    "LockCheck",
    "LockDiffers",
    "LockResult",
    "ModelFile",
    "NoSuchServer",
    "PlanResult",
    "PortTaken",
    "Prepared",
    "ProgramFigures",
    "Recommendation",
    "Reply",
    "ReplyChunk",
    "RequestFailed",
    "RequestRefused",
    "Runner",
    "RunningServer",
    "SearchResult",
    "SelfTestResult",
    "Server",
    "ServerEntry",
    "ServerError",
    "ServerFigures",
    "ServerLog",
    "ServerOptions",
    "Service",
    "SourceError",
    "Status",
    "StepError",
    "StillLoading",
    "StoreError",
    "StrangeAnswer",
    "Stream",
    "TimedOut",
    "ToolError",
    "TuneResult",
    "Unreachable",
    "Updates",
    "UsageError",
    "__version__",
]

_WHERE = {
    "llama_runner.api": ("Runner",),
    "llama_runner.benchmark.load_generator": ("Load",),
    "llama_runner.benchmark.results": ("BenchTest", "Level", "ProgramFigures", "ServerFigures", "TuneResult"),
    "llama_runner.client.async_client": ("AsyncClient",),
    "llama_runner.client.errors": (
        "ConnectionLost",
        "ContextExceeded",
        "KeyRefused",
        "RequestFailed",
        "RequestRefused",
        "StillLoading",
        "StrangeAnswer",
        "TimedOut",
        "Unreachable",
    ),
    "llama_runner.client.reply_types": ("ReplyChunk", "Reply"),
    "llama_runner.client.sync_client": ("Client", "Stream"),
    "llama_runner.config.config": ("Config",),
    "llama_runner.config.prepare_declared_models": ("Deployment", "DeploymentPlan"),
    "llama_runner.config.errors": ("ConfigError",),
    "llama_runner.core.errors": (
        "DownloadError",
        "ExitCode",
        "Interrupted",
        "LlamaRunnerError",
        "ServerError",
        "SourceError",
        "StepError",
        "StoreError",
        "ToolError",
        "UsageError",
    ),
    "llama_runner.core.events": ("Event",),
    "llama_runner.doctor": ("Diagnosis",),
    "llama_runner.doctor.self_test": ("SelfTestResult",),
    "llama_runner.generate.errors": ("CannotGenerate",),
    "llama_runner.generate.generated_files": ("GenerateOptions", "Generated"),
    "llama_runner.library.artifact_history": ("History",),
    "llama_runner.library.lock_check": ("LockCheck",),
    "llama_runner.llama_cpp.installed_builds": ("Build", "BuildStore"),
    "llama_runner.llama_cpp.newer_versions": ("Updates",),
    "llama_runner.recommend.choose_quantization": ("Recommendation",),
    "llama_runner.request.compare_with_original": ("CheckResult",),
    "llama_runner.request.lock_models": ("LockResult",),
    "llama_runner.request.lock_differences": ("LockDiffers",),
    "llama_runner.request.model_inspection": ("Inspection",),
    "llama_runner.request.result_types": ("BuildResult", "ModelFile", "PlanResult", "Prepared"),
    "llama_runner.request.install_service": ("Service",),
    "llama_runner.serving.async_server": ("AsyncServer",),
    "llama_runner.serving.errors": ("AmbiguousName", "NoSuchServer", "PortTaken"),
    "llama_runner.serving.llama_server.launch_spec": ("ServerOptions",),
    "llama_runner.serving.log_reader": ("ServerLog",),
    "llama_runner.serving.tuned_profiles": ("CannotKeep",),
    "llama_runner.serving.running_server": ("RunningServer",),
    "llama_runner.serving.listed_server": ("ServerEntry",),
    "llama_runner.serving.server_process": ("Server",),
    "llama_runner.sources.hub.search": ("SearchResult",),
    "llama_runner.status_report": ("Status",),
    "llama_runner.version": ("__version__",),
}
"""The module of each public name."""

OLD_NAMES = {
    "Forecast": "PlanResult",
    "Found": "SearchResult",
    "Made": "ModelFile",
    "MadePrograms": "BuildResult",
    "News": "Updates",
    "Piece": "ReplyChunk",
    "Trial": "SelfTestResult",
}
"""Deprecated public names, each with the new one (docs/deprecation.md)."""


def __getattr__(name: str) -> "Any":  # noqa: ANN401 - whichever it is
    """Import the module of a public name on first use; importing the package alone loads none."""
    if name in OLD_NAMES:
        import warnings  # noqa: PLC0415

        text = f"llama_runner.{name} is now llama_runner.{OLD_NAMES[name]}"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        name = OLD_NAMES[name]
    for module, names in _WHERE.items():
        if name in names:
            from importlib import import_module  # noqa: PLC0415

            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> "list[str]":
    """Return the public names, loaded or not."""
    return __all__
