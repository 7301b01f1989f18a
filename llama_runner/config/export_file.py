"""Exports declared models to a file that another program reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.config import export_ini, export_llama_swap
from llama_runner.config.export_models import Exported, Exports
from llama_runner.core.errors import LlamaRunnerError, UsageError
from llama_runner.system.platforms import IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llama_runner.config.config import Config
    from llama_runner.config.server_flags import ServerFlags
    from llama_runner.request.result_types import PlanResult
    from llama_runner.serving.llama_server.launch_spec import ServerSpec

FORMATS = (export_llama_swap.NAME, export_ini.NAME)


def export_config(
    config: Config,
    specs: Mapping[str, ServerSpec | str],
    to: str,
    *,
    flags: ServerFlags | None = None,
    windows: bool = IS_WINDOWS,
) -> Exported:
    """Return the file that another program reads; ``to`` is one of ``FORMATS``.

    ``specs``: for each model what ``Runner.plan`` returns as ``spec``, or a text that says why it is left out.
    Raises ``UsageError`` if no model can be exported.
    """
    if to not in FORMATS:
        raise UsageError(f"there is no export to {to!r}", hint=f"the formats are {' and '.join(FORMATS)}")
    exports = Exports(config, specs, flags)
    if to == export_llama_swap.NAME:
        return export_llama_swap.export_llama_swap(exports, windows=windows)
    return export_ini.export_ini(exports)


def prepared_specs(
    config: Config, plan: Callable[..., PlanResult], names: Iterable[str] | None = None
) -> dict[str, ServerSpec | str]:
    """Return what declared models would be launched with, or why they cannot be exported; None: all.

    ``plan`` is ``Runner.plan`` of a runner with this configuration. Uses no network and makes nothing.
    """
    specs: dict[str, ServerSpec | str] = {}
    for name in config.models if names is None else names:
        try:
            found = plan(name, server=None, offline=True)
        except LlamaRunnerError as error:
            specs[name] = str(error)
            continue
        specs[name] = f"llama-runner prepare {name} has work to do" if found.plan.pending else found.spec
    return specs
