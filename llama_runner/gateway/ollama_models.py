"""Models as Ollama's API describes them: in the lists, among those that run, and one in full. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_runner.gateway.ollama_names import listed_name
from llama_runner.gateway.ollama_times import FAR_FUTURE, time_text

if TYPE_CHECKING:
    from llama_runner.gateway.served_models import ModelFacts, RunningModel, ServedModel

Json = dict[str, Any]

INFILL_COMMENT = "{#- fill in the middle: .Suffix -#}"
"""Follows the template of a model that fills in the middle: Continue looks for ``.Suffix`` in it."""
_ZERO_TIME = "0001-01-01T00:00:00Z"
"""Expiry of a model that stops; clients show it as "Stopping…"."""
_PARAMETERS = {"n_predict": "num_predict", "max_tokens": "num_predict", "n_keep": "num_keep"}
"""Members of a request to llama-server that have another name in a Modelfile."""
_WIDTH = 30
_UNITS = ((10**12, "T", 1), (10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 2))


def parameter_size(count: int | None) -> str:
    """Return a number of parameters as text: ``8.2B``, ``494.03M``; empty where it is not known."""
    if not count:
        return ""
    for unit, letter, digits in _UNITS:
        if count >= unit:
            return f"{count / unit:.{digits}f}{letter}"
    return str(count)


def details(facts: ModelFacts, parent: str = "") -> Json:
    """Return the member ``details``."""
    return {
        "parent_model": parent,
        "format": "gguf",
        "family": facts.architecture,
        "families": [facts.architecture],
        "parameter_size": parameter_size(facts.parameters),
        "quantization_level": (facts.quantization or "unknown").upper(),
    }


def capabilities(facts: ModelFacts) -> list[str]:
    """Return the words for what a model can do; at least one, as clients expect."""
    return list(facts.capabilities) or ["completion"]


def listed_model(model: ServedModel, facts: ModelFacts) -> Json:
    """Return the entry of ``/api/tags``."""
    name = listed_name(model.name)
    return {
        "name": name,
        "model": name,
        "modified_at": time_text(facts.modified_at),
        "size": facts.bytes,
        "digest": facts.digest.rpartition(":")[2],
        "details": details(facts, _parent(model)),
        "capabilities": capabilities(facts),
    }


def running_model(running: RunningModel, facts: ModelFacts) -> Json:
    """Return the entry of ``/api/ps``."""
    name = listed_name(running.name)
    total = sum(running.memory.values())
    expires = _ZERO_TIME if running.state == "stopping" else time_text(running.expires_at)
    return {
        "name": name,
        "model": name,
        "size": total or facts.bytes,
        "digest": facts.digest.rpartition(":")[2],
        "details": details(facts),
        "expires_at": FAR_FUTURE if running.pinned else expires,
        "size_vram": total - running.memory.get("Host", 0) if total else 0,
        "context_length": running.context or facts.context_length or 0,
    }


def shown_model(
    model: ServedModel,
    facts: ModelFacts,
    *,
    context: int | None = None,
    arrays: Json | None = None,
    projector: Json | None = None,
) -> Json:
    """Return the document of ``/api/show``.

    ``context`` is that of the running process. ``arrays`` has the arrays of the header, for ``verbose``;
    ``projector`` is the header of the projector.
    """
    template = shown_template(facts)
    parameters = parameter_lines(model.sampling, context)
    found: Json = {
        "license": str(facts.metadata.get("general.license") or ""),
        "modelfile": modelfile(model, template, parameters),
        "parameters": parameters,
        "template": template,
        "details": details(facts, _parent(model)),
        "model_info": model_info(facts, arrays),
        "capabilities": capabilities(facts),
        "modified_at": time_text(facts.modified_at),
    }
    if model.system:
        found["system"] = model.system
    if projector is not None:
        found["projector_info"] = {name: _plain(value) for name, value in projector.items()}
    return found


def shown_template(facts: ModelFacts) -> str:
    """Return the chat template as Jinja text, with a comment where the model fills in the middle."""
    return (facts.template or "") + (INFILL_COMMENT if "insert" in facts.capabilities else "")


def model_info(facts: ModelFacts, arrays: Json | None = None) -> Json:
    """Return the metadata of the file.

    ``ARCHITECTURE.context_length`` stands before every other key with that text in it, as litellm takes the first.
    Arrays are null, except those of ``arrays``.
    """
    architecture = facts.architecture or "unknown"
    head: Json = {
        "general.architecture": architecture,
        "general.basename": facts.metadata.get("general.basename") or facts.name or facts.file.stem,
    }
    if facts.parameters:
        head["general.parameter_count"] = facts.parameters
    if facts.context_length:
        head[f"{architecture}.context_length"] = facts.context_length
    rest = {name: value for name, value in facts.metadata.items() if name not in head}
    rest.pop("tokenizer.chat_template", None)
    return {**head, **{name: (arrays or {}).get(name, _plain(value)) for name, value in rest.items()}}


def parameter_lines(sampling: Json, context: int | None = None) -> str:
    r"""Return the parameters of a model, one ``NAME VALUE`` in each line.

    Clients read them with ``^(\S+)\s+((?:".*")|\S+)$``: a text is quoted as in JSON.
    """
    rows: list[tuple[str, Any]] = [("num_ctx", context)] if context else []
    for name, value in sampling.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        rows += [(_PARAMETERS.get(name, name), each) for each in values]
    return "\n".join(
        f"{name:<{_WIDTH}} {json.dumps(value, ensure_ascii=False)}"
        for name, value in rows
        if isinstance(value, (str, int, float))
    )


def modelfile(model: ServedModel, template: str, parameters: str) -> str:
    """Return a Modelfile from which the model could be made again here."""
    lines = [f"# Modelfile of {listed_name(model.name)}", f"FROM {listed_name(model.declared)}"]
    if template:
        lines.append(f'TEMPLATE """{template}"""')
    if model.system:
        lines.append(f'SYSTEM """{model.system}"""')
    lines += [f"PARAMETER {' '.join(line.split(maxsplit=1))}" for line in parameters.splitlines()]
    return "\n".join(lines) + "\n"


def _parent(model: ServedModel) -> str:
    return "" if model.name == model.declared else listed_name(model.declared)


def _plain(value: Any) -> Any:  # noqa: ANN401 - of a header
    """Return a scalar of a header, None for an array."""
    return None if isinstance(value, dict) else value
