"""Refuses a model that this machine can never hold, before anything of it is fetched or made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import ServerError
from llama_runner.core.sizes import size_text
from llama_runner.sources.hub.source import HubGguf, HubSafetensors
from llama_runner.sources.quantization_types import ALIASES, BITS_PER_WEIGHT, DEFAULT
from llama_runner.system import hardware

if TYPE_CHECKING:
    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

_BITS = 16.0
_ON_HOST = ("cpu", "cpu-portable", "openblas")
"""Backends that use no memory but the machine's own."""


def never_fits_error(name: str, size: int, memory: int, *, exact: bool) -> ServerError:
    """Return the error for a model that is larger than all memory of this machine."""
    about = "" if exact else "about "
    return ServerError(
        f"{name} is too large for this machine: its weights take {about}{size_text(size)}, "
        f"this process may use {size_text(memory)} of memory",
        hint="--fit-memory takes a file that fits, -q a smaller quantization; --force-memory goes on",
    )


def check_size(graph: Pipeline, server: ServerOptions) -> None:
    """Raise ``ServerError`` for a model on the Hub whose weights are larger than all memory of this machine.

    Only where the programs compute on the host: what a GPU holds is known when they are there.
    """
    source, backend = graph.source, str(getattr(graph.binaries, "backend", "")).partition("+")[0]
    if server.force_memory or backend not in _ON_HOST or not isinstance(source, (HubGguf, HubSafetensors)):
        return
    size, memory = _weights(source), hardware.total_memory()
    if size > memory:
        raise never_fits_error(source.name, size, memory, exact=isinstance(source, HubGguf))


def _weights(source: HubGguf | HubSafetensors) -> int:
    """Return the bytes of the file that is served; of one that is made here, by the usual bits for each weight."""
    if isinstance(source, HubGguf):
        return source.selection.model.size
    stored = sum(file.size for file in source.files if file.name.endswith(".safetensors"))
    name = (source.quantization or DEFAULT).lower()
    if source.checkpoint_quantization is not None:
        return 0  # the stored weights are smaller than 16 bits each
    return int(stored * BITS_PER_WEIGHT.get(ALIASES.get(name, name), _BITS) / _BITS)
