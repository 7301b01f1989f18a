"""Runs the original's tokenizer and chat template: a program of its own, which imports nothing of llama_runner.

``python original_driver.py JOB RESULT`` runs where ``tokenizers`` (or ``sentencepiece``) and Jinja are installed. It
uses no network and runs no code of the model; Jinja runs in its sandbox.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.metadata
import json
import re
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

PATIENCE_S = 120
MEMORY = 4 << 30
"""Bytes of address space: a template can ask for any number."""


def tokens_of(job: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of the lines, alone and with what the tokenizer puts around them."""
    if job["tokenizer"] is not None:
        import tokenizers  # noqa: PLC0415 - may be missing, which is an answer

        found: dict[str, Any] = {"tool": f"tokenizers {tokenizers.__version__}"}
        library = tokenizers.Tokenizer.from_file(job["tokenizer"])
        library.no_truncation()
        library.no_padding()
        found["plain"] = [library.encode(line, add_special_tokens=False).ids for line in job["lines"]]
        found["framed"] = [library.encode(line, add_special_tokens=True).ids for line in job["framed"]]
        found["plain_framed"] = [library.encode(line, add_special_tokens=False).ids for line in job["framed"]]
        for name, path in job["variants"].items():
            try:
                other = tokenizers.Tokenizer.from_file(path)
                found[name] = [other.encode(line, add_special_tokens=False).ids for line in job["lines"]]
            except Exception as error:  # noqa: BLE001 - the library raises no other class
                found.setdefault("failed", {})[name] = str(error)
        return found
    import sentencepiece  # noqa: PLC0415 - as above

    model = sentencepiece.SentencePieceProcessor(model_file=job["pieces"])
    framed = [_split(model, line, job["added"]) for line in job["framed"]]
    return {
        "tool": f"sentencepiece {importlib.metadata.version('sentencepiece')}",
        "plain": [_split(model, line, job["added"]) for line in job["lines"]],
        "framed": framed,
        "plain_framed": framed,
    }


def _split(model: Any, line: str, added: dict[str, int]) -> list[int] | None:  # noqa: ANN401 - of a library
    """Return the numbers of a line; None of one with added tokens, which SentencePiece does not know."""
    return None if any(token in line for token in added) else model.encode(line)


def environment() -> Any:  # noqa: ANN401 - of a library
    """Return Jinja with what transformers adds to it."""
    from jinja2 import nodes  # noqa: PLC0415 - as above
    from jinja2.exceptions import TemplateError  # noqa: PLC0415
    from jinja2.ext import Extension, loopcontrols  # noqa: PLC0415
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    class Generation(Extension):
        """The block ``generation``, which marks what the model writes: its content is rendered as it is."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja has it

        def parse(self, parser: Any) -> Any:  # noqa: ANN401
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,  # noqa: ANN401
                sort_keys: bool = False) -> str:  # fmt: skip
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 - as transformers
    return made


def prompts_of(job: dict[str, Any]) -> dict[str, Any]:
    """Return the prompt of each conversation, or why the template refuses it."""
    import jinja2  # noqa: PLC0415 - as above

    found: dict[str, Any] = {"jinja": f"jinja2 {jinja2.__version__}", "prompts": {}, "refused": {}}
    try:
        template = environment().from_string(job["template"])
    except jinja2.TemplateError as error:
        found["refused"] = {name: f"{type(error).__name__}: {error}" for name in job["conversations"]}
        return found
    for name, conversation in job["conversations"].items():
        try:
            found["prompts"][name] = template.render(**conversation, **job["specials"])
        except Exception as error:  # noqa: BLE001 - a template may raise anything
            found["refused"][name] = f"{type(error).__name__}: {error}"
    return found


def limit_memory() -> None:
    """Limit the address space, where the system can."""
    with suppress(ImportError, OSError, ValueError):  # Windows has no such module, macOS takes no such limit
        resource: Any = importlib.import_module("resource")
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def main(job_file: str, result_file: str) -> None:
    """Read the job, write the result."""
    limit_memory()
    faulthandler.dump_traceback_later(PATIENCE_S, exit=True)  # an expression or a template may take for ever
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    result: dict[str, Any] = {}
    try:
        result |= tokens_of(job)
    except ImportError as error:
        result["missing"] = error.name
    except Exception as error:  # noqa: BLE001 - the libraries raise no other class
        result["unreadable"] = re.sub(r"\s+", " ", str(error))
    if job["template"] is not None:
        try:
            result |= prompts_of(job)
        except ImportError as error:
            result["missing_for_template"] = error.name
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
