"""Memory of the host that a declared model takes, if it is prepared on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.serving.llama_server.memory_check import host_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.config.layers import Resolved
    from llama_runner.request.result_types import PlanResult


def known_memory(plan: Callable[..., PlanResult], kept: Path, resolved: Resolved) -> tuple[int, int] | None:
    """Return the bytes that a model takes and those that its cache of prompts may take; None if it is not prepared.

    ``plan`` is that of ``Runner``, ``kept`` the directory of what is known.
    """
    keywords = {**resolved.keywords, "offline": True, "remote_store": ""}
    server = resolved.server.replace(host="127.0.0.1", api_key_file=None, tls_cert=None, tls_key=None)
    try:
        found = plan(resolved.source, server=server, **keywords)
    except LlamaRunnerError:  # what keeps it from running here may not be there
        return None
    return None if found.plan.pending else host_bytes(found.spec, kept, lambda _event: None)
