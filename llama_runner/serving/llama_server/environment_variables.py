"""``LLAMA_ARG_*`` variables that reach llama-server, and which of them count beside our own options. Pure.

llama-server reads its variables first and its arguments after them. An argument that we pass by default would therefore
override a variable of the user. ``with_variables`` puts the variable in the place of our default.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.llama_cpp.program_environment import MODEL_SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llama_runner.llama_cpp.capabilities import Capabilities
    from llama_runner.serving.llama_server.launch_spec import ServerOptions


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _context(text: str) -> int | str:
    return "auto" if text == "0" else _count(text)  # 0: llama-server decides, and reads the variable itself


def _layers(text: str) -> int | str:
    return text if text in ("auto", "all") else int(text)


_FIELDS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "LLAMA_ARG_HOST": ("host", "--host", str),
    "LLAMA_ARG_PORT": ("port", "--port", int),
    "LLAMA_ARG_CTX_SIZE": ("ctx_size", "--ctx-size", _context),
    "LLAMA_ARG_THREADS": ("threads", "--threads", _count),
    "LLAMA_ARG_N_GPU_LAYERS": ("gpu_layers", "--gpu-layers", _layers),
    "LLAMA_ARG_SSL_CERT_FILE": ("tls_cert", "--tls-cert", Path),
    "LLAMA_ARG_SSL_KEY_FILE": ("tls_key", "--tls-key", Path),
}
"""The variables of our own options: the field, the option, and what makes the field's value of the text."""

_WORDS = {
    "LLAMA_ARG_ALIAS": ("--alias", "-a"),
    "LLAMA_ARG_MMPROJ": ("--mmproj", "-mm"),
    "LLAMA_ARG_CORS_ORIGINS": ("--cors-origins",),
    "LLAMA_ARG_API_PREFIX": ("--api-prefix",),
}
"""The variables of further options that we pass by default, or have to know: their spellings."""


def with_variables(options: ServerOptions, environment: Mapping[str, str]) -> ServerOptions:
    """Return the options with variables in the place of defaults, where the server inherits our environment.

    A field counts as given by the user where it differs from its default or is named in ``fixed``.
    """
    if not options.inherit_environment:
        return options
    changed: dict[str, Any] = {}
    for name, (field, _, read) in _FIELDS.items():
        text = environment.get(name)
        if text and not _is_given(options, field):
            value = _read(read, text)
            changed |= {} if value is None else {field: value}
    words = [
        word
        for name, spellings in _WORDS.items()
        if environment.get(name) and not _is_among(spellings, options.extra)
        for word in (spellings[0], environment[name])
    ]
    if words:
        changed["extra"] = (*words, *options.extra)
    return options.replace(**changed) if changed else options


def overridden(options: ServerOptions, environment: Mapping[str, str], known: Capabilities) -> list[str]:
    """Return a sentence for each variable that has no effect: an option of the user, or the model, overrides it."""
    told = [
        f"{name} has no effect: the model is the one that was named" for name in MODEL_SOURCES if environment.get(name)
    ]
    for name, (field, option, read) in _FIELDS.items():
        text = environment.get(name)
        if text and _is_given(options, field) and _read(read, text) not in (None, getattr(options, field)):
            told.append(f"{name} has no effect: {option} overrides it")
    own = {*MODEL_SOURCES, *_FIELDS}
    for at, word in enumerate(options.extra):
        flag = known.flag(word) if word.startswith("-") else None
        if flag is None or flag.env is None or flag.env in own or not environment.get(flag.env):
            continue
        if options.extra[at + 1 : at + 2] != (environment[flag.env],):
            told.append(f"{flag.env} has no effect: {word} overrides it")
    return list(dict.fromkeys(told))


def _is_given(options: ServerOptions, field: str) -> bool:
    return field in options.fixed or getattr(options, field) != options.fields[field].default


def _is_among(spellings: tuple[str, ...], words: tuple[str, ...]) -> bool:
    return any(word in spellings or (word[:2] == "--" and word.replace("_", "-") in spellings) for word in words)


def _read(read: Callable[[str], Any], text: str) -> Any:  # noqa: ANN401 - whatever a field is
    """Return a variable as the value of a field; None for what llama-server has to refuse itself."""
    try:
        return read(text)
    except ValueError:
        return None
