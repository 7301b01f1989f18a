"""What clients are told of a model: read from the header of its file and of its projector."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llama_runner.gateway.served_models import ModelFacts
from llama_runner.request.model_inspection import inspect
from llama_runner.serving.llama_server.memory_check import files_of
from llama_runner.serving.llama_server.served_task import made_for
from llama_runner.sources.gguf_header import NotGGUF, read_header
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llama_runner.request.result_types import Prepared

_FIM = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_LARGEST_TEMPLATE = 1 << 20
_THINKING = ("enable_thinking", "<think>", "reasoning_content", "thinking")


def facts_of(prepared: Prepared, extra: Sequence[str] = ()) -> ModelFacts:
    """Return the facts of a model that is on disk. ``extra`` may give it another chat template than its own."""
    found = inspect(prepared.model)
    template = _given_template(extra) or found.template
    return ModelFacts(
        file=prepared.model,
        digest=prepared.digest or _digest(prepared.model),
        bytes=found.bytes,
        modified_at=prepared.model.stat().st_mtime,
        architecture=found.architecture or "",
        name=found.metadata.get("general.name"),
        parameters=found.parameters,
        quantization=prepared.facts.get("quantization"),
        context_length=found.context_length,
        template=template,
        metadata=found.metadata,
        kind=made_for(prepared.facts),
        projector=prepared.projector,
        capabilities=_capabilities(prepared, found.metadata, template or ""),
    )


def _given_template(extra: Sequence[str]) -> str | None:
    """Return the chat template that options of llama-server give, None without one or if it cannot be read."""
    for word, value in pairwise(extra):
        if word == "--chat-template-file":
            try:
                return read_bounded(value, _LARGEST_TEMPLATE).decode("utf-8", "replace")
            except OSError:
                return None
        if word == "--chat-template" and "{" in value:
            return value
    return None


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
    return "stamps:" + hashlib.sha256(repr(files).encode("utf-8", "surrogateescape")).hexdigest()
