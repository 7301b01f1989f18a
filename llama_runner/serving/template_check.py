"""Checks before a start whether llama-server can read the chat template of a model.

llama-server reads the template after it has loaded the weights, and exits where it cannot. Here the same program is
started once with a model of a few kilobytes that has the same template. The answer is kept, by template and program,
and by the files of the launch, so that later launches read one small file.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import Interrupted, LlamaRunnerError, ServerError
from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable
from llama_runner.core.sha256 import sha256
from llama_runner.system.files import read_head, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable

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
_SIZE, _CONTEXT, _ALIGNMENT = 8, 64, 32
"""Width and context of the model that is served, and the alignment of its weights."""


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


def check_template(spec: ServerSpec, kept: Path) -> None:
    """Raise ``UnreadableTemplate`` if llama-server would exit for the chat template of the model.

    Where that cannot be known, the launch goes on. A template that the options name is not looked at: llama-server
    reads it before anything else. ``kept`` is the directory of the answers.
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
        answer = _known(file) or (_ask(spec, templates, switches) if templates else _Answer())
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


def _ask(spec: ServerSpec, templates: dict[str, str], switches: list[str]) -> _Answer | None:
    """Start the program with the templates; return no problem where it ends for another reason.

    None where that cannot be tried now, as on a full disk.
    """
    import tempfile  # noqa: PLC0415 - not on the warm path

    try:
        with tempfile.TemporaryDirectory(prefix="llama-runner-template-") as folder:
            model = Path(folder, "template.gguf")
            model.write_bytes(_tiny_model(templates))
            problem = _problem(spec, model, switches)
            return _Answer(problem, bool(problem) and "--no-jinja" not in switches and _has_format(spec, model))
    except Interrupted:
        raise
    except LlamaRunnerError:
        return _Answer()
    except OSError:
        return None


def _problem(spec: ServerSpec, model: Path, switches: list[str]) -> str:
    """Return what llama-server says of the template; empty if it reads it."""
    from llama_runner.serving.errors import ServerDied  # noqa: PLC0415 - not on the warm path

    try:
        with _server(spec, model, switches) as server:
            server.wait_ready()
    except ServerDied:
        text = read_head(_log(model), _LOG_BYTES).decode("utf-8", "replace")
        found = re.search(_PROBLEM, text)
        return found[1].strip() if found else ""
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


def _tiny_model(templates: dict[str, str]) -> bytes:
    """Return a GGUF file of one small block, whose weights are zero, with the templates."""
    from llama_runner.convert.gguf_metadata import KeyValues, encode_string  # noqa: PLC0415 - not on the warm path
    from llama_runner.convert.vocab.token_types import BYTE, CONTROL, UNKNOWN  # noqa: PLC0415 - as above

    tokens = ("<unk>", "<s>", "</s>", "<0x0A>")
    values = KeyValues("llama")
    for name, number in (("context_length", _CONTEXT), ("embedding_length", _SIZE), ("block_count", 1)):
        values.uint32(f"llama.{name}", number)
    for name, number in (("feed_forward_length", _SIZE), ("attention.head_count", 1), ("rope.dimension_count", _SIZE)):
        values.uint32(f"llama.{name}", number)
    values.float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    values.string("tokenizer.ggml.model", "llama")
    values.strings("tokenizer.ggml.tokens", tokens)
    values.floats("tokenizer.ggml.scores", [0.0] * len(tokens))
    values.integers("tokenizer.ggml.token_type", [UNKNOWN, CONTROL, CONTROL, BYTE])
    for key, text in templates.items():
        values.string(key, text)
    block = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes = {"token_embd.weight": (_SIZE, len(tokens)), "output_norm.weight": (_SIZE,)}
    shapes |= {f"blk.0.{name}.weight": (_SIZE,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.{name}.weight": (_SIZE, _SIZE) for name in block}
    table, end = b"", 0
    for name, shape in shapes.items():
        table += encode_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, end)
        end += 4 * math.prod(shape)  # a multiple of the alignment, as rows are
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(values)) + values.encode() + table
    return head + bytes(-len(head) % _ALIGNMENT + end)
