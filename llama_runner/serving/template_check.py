"""Checks before a start whether llama-server can read the chat template of a model.

llama-server reads the template after it has loaded the weights, and exits where it cannot. Here the same program is
started once with a model of a few kilobytes that has the same template. The answer is kept, by template and program,
and by the files of the launch, so that later launches read one small file.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import Interrupted, LlamaRunnerError, ServerError
from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable
from llama_runner.core.short_sha256 import sha256
from llama_runner.system.files import read_head, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.serving.server_process import Server

_SCHEME = "template 1"
_KEPT = 400
"""Answers that are kept; older ones are removed."""
_PATIENCE_S = 30.0
_SHOWN = 300
"""Characters of llama-server's message that the error shows."""
_LOG_BYTES = 1 << 16
_PREFIX = "tokenizer.chat_template"
_PROBLEM = r"(?s)chat template parsing error: (.*?)(?:\n\S*\s*[IWED] |\Z)"
"""llama-server's message in its log: up to the next line with a time and a level."""
_GIVEN = frozenset({"--chat-template", "--chat-template-file"})
_SWITCHES = frozenset({"--jinja", "--no-jinja"})
_CONTEXT = 64


class UnreadableTemplate(ServerError):
    """llama-server cannot read the model's chat template; found before it is started.

    ``why`` is llama-server's message. ``has_format``: without Jinja, llama-server knows a format for the model.
    """

    def __init__(self, name: str, why: str, *, has_format: bool) -> None:
        self.name, self.why, self.has_format = name, why, has_format
        shown = printable(" ".join(why.split()))
        short = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
        own = (
            "-- --no-jinja uses llama.cpp's built-in format for this template, without tools; or " if has_format else ""
        )
        super().__init__(
            f"llama-server cannot read the chat template of {name}: {short}",
            hint=f"{own}-- --chat-template-file FILE uses another template: llama.cpp's source has corrected ones in "
            "models/templates; -- --no-jinja --chat-template NAME uses a built-in format, see llama-server --help",
        )


class _Answer(Value):
    """What llama-server said of a template; an empty ``problem`` for one that it reads."""

    problem: str = ""
    has_format: bool = False


def check_template(spec: ServerSpec, kept: Path, cancelled: Callable[[], bool] = lambda: False) -> None:
    """Raise ``UnreadableTemplate`` if llama-server would exit for the chat template of the model.

    Where that cannot be known, the launch goes on; ``Interrupted`` once ``cancelled`` says so. A template that the
    options name is not looked at: llama-server reads it before anything else. ``kept`` is the directory of the answers.
    """
    switches = [word for word in spec.extra if word in _SWITCHES]
    if not _GIVEN.isdisjoint(spec.extra) or (spec.inherit_environment and _is_set_by_variables(os.environ)):
        return
    try:
        program, model = _identity(spec.binary), _identity(spec.model)
    except OSError:
        return
    launch = _file(kept, program, model, switches)
    if (answer := _known(launch)) is None:
        templates = _templates(spec.model)
        file = _file(kept, program, templates, switches)
        answer = _known(file) or (_ask(spec, templates, switches, cancelled) if templates else _Answer())
        if answer is None:
            return
        _keep(answer, file, launch)
    if answer.problem:
        raise UnreadableTemplate(spec.alias, answer.problem, has_format=answer.has_format)


def _is_set_by_variables(environment: Iterable[str]) -> bool:
    """Return whether variables choose the template or how it is read."""
    ours = [name for name in environment if name.startswith("LLAMA_ARG_")]
    return any("JINJA" in name or "CHAT_TEMPLATE" in name for name in ours)


def _identity(path: Path) -> list[Any]:
    about = path.stat()
    return [str(path), about.st_size, about.st_mtime_ns]


def _file(kept: Path, *what: object) -> Path:
    text = json.dumps([_SCHEME, *what])
    return kept / f"{sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.json"


def _known(file: Path) -> _Answer | None:
    """Return the answer that is written down; a damaged file is none."""
    try:
        found = read_json(file)
        return _Answer(str(found["problem"]), bool(found["has_format"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _keep(answer: _Answer, *files: Path) -> None:
    with suppress(OSError):  # a root that cannot be written to is asked again each time
        for file in files:
            write_json(file, dict(answer.__dict__))
        known = sorted(files[0].parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for old in known[:-_KEPT]:
            old.unlink(missing_ok=True)


def _templates(model: Path) -> dict[str, str]:
    """Return the chat templates of a GGUF file by their keys; none of a file that cannot be read."""
    from llama_runner.core.errors import SourceError  # noqa: PLC0415 - not on the warm path
    from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415 - as above

    try:
        metadata = read_header(model).metadata
    except SourceError:
        return {}
    return {key: text for key, text in metadata.items() if key.startswith(_PREFIX) and isinstance(text, str)}


def _ask(
    spec: ServerSpec, templates: dict[str, str], switches: list[str], cancelled: Callable[[], bool]
) -> _Answer | None:
    """Start the program with the templates and return what it says of them.

    None where it says nothing of them, as on a full disk, with too little memory, or where it ends for another reason.
    """
    import tempfile  # noqa: PLC0415 - not on the warm path

    try:
        with tempfile.TemporaryDirectory(prefix="llama-runner-template-") as folder:
            model = Path(folder, "template.gguf")
            _write_model(model, templates)
            problem = _problem(spec, model, switches, cancelled)
            if problem is None:
                return None
            return _Answer(problem, bool(problem) and "--no-jinja" not in switches and _has_format(spec, model))
    except Interrupted:
        raise
    except (LlamaRunnerError, OSError):
        return None


def _problem(spec: ServerSpec, model: Path, switches: list[str], cancelled: Callable[[], bool]) -> str | None:
    """Return what llama-server says of the template; empty if it reads it, None if it ends without a word of it."""
    from llama_runner.serving.errors import ServerDied  # noqa: PLC0415 - not on the warm path

    try:
        with _server(spec, model, switches) as server:
            server.wait_ready(cancelled)
    except ServerDied:
        text = read_head(_log(model), _LOG_BYTES).decode("utf-8", "replace")
        found = re.search(_PROBLEM, text)
        return found[1].strip() if found else None
    return ""


def _has_format(spec: ServerSpec, model: Path) -> bool:
    """Return whether llama-server formats a conversation without Jinja."""
    from llama_runner.serving.llama_server.readiness import Asked  # noqa: PLC0415 - not on the warm path

    body = {"messages": [{"role": "user", "content": "hello"}]}
    with suppress(ServerError), _server(spec, model, ["--no-jinja"]) as server:
        server.wait_ready()
        return Asked(server.url, server.api_key).ask("POST", "/apply-template", body, timeout=_PATIENCE_S) is not None
    return False


def _server(spec: ServerSpec, model: Path, switches: list[str]) -> Server:
    """Start the program of a launch with a tiny model, on the processor, for us alone."""
    from llama_runner.serving.llama_server.launch_spec import ServerOptions, spec_of  # noqa: PLC0415 - not on the warm path
    from llama_runner.serving.server_process import Server  # noqa: PLC0415 - as above

    options = ServerOptions(
        port=0,
        ctx_size=_CONTEXT,
        threads=1,
        api_key="auto",
        load_timeout=_PATIENCE_S,
        extra=("--device", "none", "--no-warmup", *switches),
    )
    return Server(
        spec_of(options, binary=spec.binary, model=model, alias="template", trained_context=None, cores=1),
        log=_log(model),
        log_name=_log(model).name,
        registry=model.with_name("servers"),
        sink=lambda _event: None,
        terminal=None,
    )


def _log(model: Path) -> Path:
    return model.with_suffix(".log")


def _write_model(target: Path, templates: dict[str, str]) -> None:
    """Write a tiny model with the templates."""
    from llama_runner.convert.gguf_metadata import KeyValues  # noqa: PLC0415 - not on the warm path
    from llama_runner.convert.vocab.token_types import BYTE, CONTROL, UNKNOWN  # noqa: PLC0415 - as above
    from llama_runner.sources.gguf_without_weights import write_tiny_model  # noqa: PLC0415 - as above

    tokens = ("<unk>", "<s>", "</s>", "<0x0A>")
    values = KeyValues("llama")
    values.string("tokenizer.ggml.model", "llama")
    values.strings("tokenizer.ggml.tokens", tokens)
    values.floats("tokenizer.ggml.scores", [0.0] * len(tokens))
    values.integers("tokenizer.ggml.token_type", [UNKNOWN, CONTROL, CONTROL, BYTE])
    for key, text in templates.items():
        values.string(key, text)
    write_tiny_model(target, values.encoded, len(tokens))
