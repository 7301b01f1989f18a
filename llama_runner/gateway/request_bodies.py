"""Changes to the bodies of requests: what a variant adds, and what is refused. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llama_runner.gateway.adapters import wanted_adapters
from llama_runner.gateway.errors import BadRequest

if TYPE_CHECKING:
    from llama_runner.gateway.served_models import ServedModel

_OPENAI_CHATS = ("/v1/chat/completions", "/v1/chat/completions/input_tokens", "/apply-template")
_CHATS = (*_OPENAI_CHATS, "/v1/messages", "/v1/messages/count_tokens", "/v1/responses")
_COMPLETIONS = (*_CHATS, "/v1/completions", "/completion", "/infill")
_DEPTH = 64
_FILE_NAME = re.compile(rb'name="([^"\r\n]*)"')
_SYNONYMS = {"n_predict": ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")}
"""Names that a client may give a setting of ``sampling``."""


def parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body; ``BadRequest``."""
    try:
        found = json.loads(body)
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadRequest("the body is not a JSON object")
    return found


def model_name(body: dict[str, Any]) -> str:
    """Return the model that a body names; ``BadRequest`` without one."""
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise BadRequest("the body names no model", field="model", hint="set model to one of GET /v1/models")
    return name


def check(path: str, body: dict[str, Any], *, fetch_images: bool = False) -> dict[str, float] | None:
    """Return the adapters that a body chooses; ``BadRequest`` for what llama-server does not do, or must not do.

    llama-server fetches an image from any address that it is given, those of the local network included. Unless
    ``fetch_images``, only ``data:`` URLs are passed on.
    """
    adapters = wanted_adapters(body)
    if not fetch_images and path in _CHATS and (url := _remote_url(body, _DEPTH)) is not None:
        raise BadRequest(
            f"images and files are not fetched from URLs: {url[:100]}",
            field="image_url",
            hint="send the bytes as data:image/png;base64,…",
        )
    return adapters


def _remote_url(value: object, depth: int) -> str | None:
    """Return the first URL of an image, a sound or a file that is not its own content."""
    if depth <= 0:
        raise BadRequest("the body is nested too deeply")
    if isinstance(value, list):
        return next((url for each in value if (url := _remote_url(each, depth - 1)) is not None), None)
    if not isinstance(value, dict):
        return None
    kind = value.get("type")
    if kind in ("image_url", "input_image", "audio_url", "video_url", "input_audio", "input_video", "input_file"):
        for key in ("image_url", "audio_url", "video_url", "file_url", "url", "data"):
            url = value.get(key)
            url = url.get("url") if isinstance(url, dict) else url
            if isinstance(url, str) and _is_remote(url):
                return url
    source = value.get("source")
    if isinstance(source, dict) and isinstance(url := source.get("url"), str) and _is_remote(url):
        return url
    return next((url for each in value.values() if (url := _remote_url(each, depth - 1)) is not None), None)


def _is_remote(url: str) -> bool:
    return re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*:", url) is not None and not url.lstrip().lower().startswith("data:")


def with_variant(path: str, body: dict[str, Any], model: ServedModel) -> dict[str, Any]:
    """Return a body with what the name of the model adds: settings and a system prompt, where the client gives none."""
    if path not in _COMPLETIONS or not (model.sampling or model.template or model.system):
        return body
    added = model.sampling.items()
    changed = body | {key: value for key, value in added if body.keys().isdisjoint(_SYNONYMS.get(key, (key,)))}
    if path in _CHATS:
        if model.template:
            given = body.get("chat_template_kwargs")
            changed["chat_template_kwargs"] = {**model.template, **(given if isinstance(given, dict) else {})}
        if model.system:
            _add_system(path, changed, model.system)
    return changed


def _add_system(path: str, body: dict[str, Any], system: str) -> None:
    if path in _OPENAI_CHATS:
        messages = body.get("messages")
        if isinstance(messages, list) and not any(_role(each) in ("system", "developer") for each in messages):
            body["messages"] = [{"role": "system", "content": system}, *messages]
    elif path == "/v1/responses":
        given = body.get("input")
        said = isinstance(given, list) and any(_role(each) in ("system", "developer") for each in given)
        if not body.get("instructions") and not said:
            body["instructions"] = system
    elif not body.get("system"):
        body["system"] = system


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, dict) else None


def model_of_form(body: bytes, content_type: str) -> str | None:
    """Return the field ``model`` of a body of the type ``multipart/form-data``; None without one."""
    match = re.search(r'boundary="?([^";,]+)"?', content_type)
    if match is None:
        return None
    for part in body.split(b"--" + match[1].encode("latin-1", "replace"))[1:]:
        head, gap, value = part.partition(b"\r\n\r\n")
        names = _FILE_NAME.findall(head)
        if gap and names and names[0] == b"model":
            return value.removesuffix(b"\r\n").decode("utf-8", "replace").strip()
    return None
