"""Finds the running server for a call: by its name, or by its model in any quantization."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import UsageError
from llama_runner.request.request_as_command_line import run_arguments
from llama_runner.serving.errors import AmbiguousName
from llama_runner.serving.server_matching import gives_same_answers
from llama_runner.serving.server_names import matching
from llama_runner.serving.server_registry import running
from llama_runner.store.layout import user_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.serving.llama_server.launch_spec import ServerSpec

_SOURCES = ("hf_model", "gguf_path", "safetensors_dir")
_NEUTRAL = ("offline", "token_file", "update")
"""Keywords that do not decide which model is served."""


def nothing_runs_error() -> UsageError:
    """Return the error for a call without a model where no server runs either."""
    return UsageError(
        "no model given, and no server runs", hint="name a model, or start one: llama-runner run MODEL --detach"
    )


def address_of(model: str | Path | None) -> str | None:
    """Return the model where it is the URL of a server."""
    from llama_runner.sources.hub.parse_model_name import is_other_address  # noqa: PLC0415 - not on the warm path

    text = str(model or "")
    return text if "://" in text and is_other_address(text, os.environ.get("HF_ENDPOINT")) else None


def named_server(
    registry: Path, model: str | Path | None, keywords: RunnerKeywords, *, for_hub_names: bool = True
) -> dict[str, Any] | None:
    """Return the entry of the running server that ``model`` names; None where it means a model itself.

    A path that exists is a model. A name that the Hub may have is a server only if one is called exactly so, and with
    ``for_hub_names``. No model at all is the server that runs. Raises ``AmbiguousName`` where several fit, and
    ``UsageError`` where there is neither a model nor a server.
    """
    asked = {name: value for name, value in keywords.items() if name not in _NEUTRAL}
    if run_arguments(None, None, asked):
        return None
    ready = _ready(registry)
    if model is None:
        found = ready if for_hub_names else []
    elif "://" not in str(model) and user_path(model).exists():
        found = []
    else:
        found = matching(ready, str(model))
        from llama_runner.sources.hub.parse_model_name import looks_like_hub_name  # noqa: PLC0415 - not for a path

        if "://" not in str(model) and looks_like_hub_name(str(model)):
            found = [about for about in found if for_hub_names and about["alias"] == str(model)]
    if model is None and for_hub_names and not found:
        raise nothing_runs_error()
    if len(found) > 1:
        raise AmbiguousName(str(model or ""), [str(about["url"]) for about in found])
    return found[0] if found else None


def server_of_model(
    registry: Path, model: str | Path | None, keywords: RunnerKeywords, plan: Callable[[], ServerSpec]
) -> dict[str, Any] | None:
    """Return the entry of a running server of the same model in another quantization, where none is asked for.

    ``plan`` returns what would be launched; it is called only if a server with a similar name runs. Everything else
    that changes answers is the same.
    """
    sources = [model, *(keywords.get(name) for name in _SOURCES), "demo" if keywords.get("demo") else None]
    source = next((str(each) for each in sources if each), None)
    if source is None or keywords.get("quantization"):
        return None
    name, _, tag = Path(source.rstrip("/")).absolute().name.partition(":")
    if tag and not user_path(source).exists():  # a quantization, or a revision
        return None
    similar = matching(_ready(registry), name.partition("@")[0])
    if not similar:
        return None
    spec = plan()
    environment = spec.environment(os.environ)
    alike = []
    for about in similar:
        path = Path(str(about.get("model")))
        if path.parent == spec.model.parent and gives_same_answers(about, spec.replace(model=path), environment):
            alike.append(about)
    exact = [about for about in alike if Path(str(about["model"])) == spec.model]
    return None if exact or not alike else alike[-1]


def _ready(registry: Path) -> list[dict[str, Any]]:
    return [about for about in running(registry) if about.get("state") == "ready" and about.get("shared", True)]
