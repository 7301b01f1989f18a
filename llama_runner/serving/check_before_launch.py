"""Checks before a start: the chat template, then memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.serving.llama_server.memory_check import Memory
from llama_runner.serving.template_check import check_template
from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.core.events import Sink
    from llama_runner.serving.llama_server.launch_spec import ServerSpec


def checked(
    spec: ServerSpec,
    private: Path,
    sink: Sink,
    *,
    freed: int | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Memory:
    """Return the memory of a launch once it is checked; see ``check_template`` and ``Memory.check``."""
    check_template(spec, layout.chat_templates(private), cancelled)
    memory = Memory(spec, layout.memory_needs(private), sink)
    memory.check(freed)
    return memory
