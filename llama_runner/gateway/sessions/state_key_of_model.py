"""What the states of a process are keyed by: read from a prepared model. Blocks: files are hashed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.short_sha256 import sha256
from llama_runner.sessions.state_compatibility_key import StateParts, options_of_state
from llama_runner.store.digest_cache import hash_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.gateway.served_models import ModelFacts
    from llama_runner.request.result_types import Prepared

_RECURRENT = ("ssm.", "shortconv.", "wkv.", "kda.", "linear_attention.", "rwkv", "time_mix_", "recurrent")
"""What keys of the header of a recurrent or hybrid model have behind the architecture."""

_WINDOW_UNUSED = ("llama", "mistral3", "phi3", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "starcoder2")
"""Architectures whose files may name a window that llama.cpp does not use."""
_WINDOW_ALWAYS = ("llama4", "gemma2", "exaone-moe", "smallthinker")
"""Architectures that have a window although their files may not name one."""


def parts_of(prepared: Prepared, facts: ModelFacts, words: tuple[str, ...]) -> StateParts:
    """Return the parts of the key but for the adapters of a request. ``words`` are options of llama-server."""
    build = ", ".join(f"{name} {value}" for name, value in sorted(prepared.build.items()) if isinstance(value, str))
    return StateParts(
        model=facts.digest.rpartition(":")[2],
        build=f"{prepared.binaries.name}: {build}",
        projector="" if facts.projector is None else _digest(facts.projector),
        template=sha256((facts.template or "").encode("utf-8", "surrogatepass")).hexdigest(),
        options=options_of_state(words),
    )


def _digest(path: str | Path) -> str:
    with suppress(OSError):
        return str(hash_file(path))  # type: ignore[arg-type]
    return "unreadable"


def is_recurrent(metadata: Mapping[str, Any], architecture: str) -> bool:
    """Return whether a model is recurrent or hybrid: its state can be reused as a whole only."""
    return architecture.startswith(("mamba", "rwkv")) or any(
        key.removeprefix(f"{architecture}.").startswith(_RECURRENT) for key in metadata
    )


def has_sliding_window(metadata: Mapping[str, Any], architecture: str) -> bool:
    """Return whether some layers attend to the last tokens only.

    llama-server saves as many tokens as the window has, with ``--swa-full`` too. Where it restores, it wants one more
    and reads everything again; with ``--swa-full`` it takes all for there, and answers a chat that was changed wrongly
    (``pos_min_thold`` in ``server-context.cpp``, ``state_write`` in ``llama-kv-cache.cpp``).
    """
    window = metadata.get(f"{architecture}.attention.sliding_window")
    return architecture in _WINDOW_ALWAYS or (bool(window) and architecture not in _WINDOW_UNUSED)
