"""What clients are told of a model: read from the header of its file and of its projector."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from llama_runner.gateway.models import ModelFacts
from llama_runner.request.model_inspection import inspect
from llama_runner.serving.llama_server.memory_check import files_of
from llama_runner.serving.llama_server.served_task import made_for
from llama_runner.sources.gguf_header import NotGGUF, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.request.results import Prepared

_FIM = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_THINKING = ("enable_thinking", "<think>", "reasoning_content", "thinking")


def facts_of(prepared: Prepared) -> ModelFacts:
    """Return the facts of a model that is on disk."""
    found = inspect(prepared.model)
    return ModelFacts(
        file=prepared.model,
        sha256=prepared.sha256 or _digest(prepared.model),
        bytes=found.bytes,
        modified_at=prepared.model.stat().st_mtime,
        architecture=found.architecture or "",
        name=found.metadata.get("general.name"),
        parameters=found.parameters,
        quantization=prepared.facts.get("quantization"),
        context_length=found.context_length,
        template=found.template,
        metadata=found.metadata,
        kind=made_for(prepared.facts),
        projector=prepared.projector,
        capabilities=_capabilities(prepared, found.metadata, found.template or ""),
    )


def _capabilities(prepared: Prepared, metadata: Mapping[str, Any], template: str) -> tuple[str, ...]:
    kind = made_for(prepared.facts)
    if kind != "text":
        return ("embedding",)
    projector = _metadata(prepared.projector)
    can = {
        "completion": True,
        "tools": "tools" in template,
        "insert": any(key in metadata for key in _FIM),
        "vision": bool(projector) and projector.get("clip.has_vision_encoder", True) is not False,
        "thinking": any(word in template for word in _THINKING),
        "audio": projector.get("clip.has_audio_encoder") is True,
    }
    return tuple(name for name, has in can.items() if has)


def _metadata(projector: Path | None) -> Mapping[str, Any]:
    if projector is None:
        return {}
    try:
        return read_header(projector).metadata
    except (NotGGUF, OSError):
        return {}


def _digest(model: Path) -> str:
    """Return a digest of a model whose bytes were not hashed: of names, sizes and times of its files."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files_of(model)]
    return hashlib.sha256(repr(files).encode("utf-8", "surrogateescape")).hexdigest()
