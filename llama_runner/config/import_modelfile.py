"""Imports Ollama's Modelfile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_runner.config.import_options import name_of
from llama_runner.config.import_report import ImportFailed
from llama_runner.config.paths_of_imported_file import is_absolute

if TYPE_CHECKING:
    from llama_runner.config.import_options import ModelDraft
    from llama_runner.config.imported_configuration import Context

NAME = "modelfile"
_INSTRUCTIONS = [
    "FROM",
    "PARAMETER",
    "SYSTEM",
    "TEMPLATE",
    "ADAPTER",
    "MESSAGE",
    "LICENSE",
    "REQUIRES",
    "RENDERER",
    "PARSER",
    "CAPABILITY",
    "DRAFT",
    "TOOLS",
]
_INSTRUCTION = re.compile(r"(?i)\s*(" + "|".join(_INSTRUCTIONS) + r")(?:\s+|(?=\"))(.*)", re.DOTALL)
_SAMPLING = {
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")},
    **{name: name for name in ("repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty")},
    **{name: name for name in ("mirostat", "mirostat_tau", "mirostat_eta")},
    "num_predict": "n_predict",
}
_LLAMA = {"num_batch": "batch-size", "main_gpu": "main-gpu", "num_keep": "keep"}
_FLAGS = {"use_mmap": "mmap", "use_mlock": "mlock"}
_GONE = {
    **dict.fromkeys(("tfs_z", "penalize_newline", "num_gqa", "rope_frequency_base", "rope_frequency_scale"), ""),
    **dict.fromkeys(("f16_kv", "low_vram", "vocab_only", "logits_all", "embedding_only", "draft_num_predict"), ""),
}
_TRUE = ("true", "1", "yes", "on")


class _Instruction(NamedTuple):
    line: int
    name: str
    value: str


def looks_like(text: str) -> bool:
    """Return whether the first instruction of a text is one of a Modelfile, and one is FROM."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return (
        bool(lines) and _INSTRUCTION.match(lines[0]) is not None and any(re.match(r"(?i)\s*FROM\s", e) for e in lines)
    )


def import_modelfile(text: str, context: Context) -> None:
    """Import a file: one model."""
    draft = context.draft("here")
    source = ""
    for each in _instructions(text):
        if each.name == "FROM":
            source = _take_source(draft, each, context) or source
        else:
            getattr(_Takes, each.name.lower(), _Takes.other)(draft, each, context)
    if not source and not draft.left_out:
        raise ImportFailed(NAME, "there is no FROM")
    context.finish(draft, context.name or _own_name(context.file_name) or name_of(source), line=1, context=False)


def _own_name(file_name: str) -> str:
    """Return the name in ``Modelfile.NAME`` and ``NAME.Modelfile``."""
    found = re.fullmatch(r"(?i)modelfile[.-](.+)|(.+)\.modelfile", file_name)
    return (found[1] or found[2]) if found else ""


def _take_source(draft: ModelDraft, each: _Instruction, context: Context) -> str:
    value, text = each.value, f"FROM {each.value}"
    if "source" in draft.table:
        draft.skip(each.line, text, "a part of the model that is named before", "not needed")
        return ""
    hub = re.fullmatch(r"(?:hf\.co|huggingface\.co)/([\w.-]+/[\w.-]+(?::[\w.-]+)?)", value)
    if hub:
        draft.put(each.line, text, ("source",), hub[1])
        return hub[1]
    is_path = is_absolute(value) or value.startswith(".") or re.search(r"(?i)\.(gguf|bin|safetensors)$", value)
    if is_path and "sha256-" not in value:
        if "*" in value:
            draft.left_out = f"{value} names several files"
            draft.skip(each.line, text, "name the first file of the model")
            return value
        draft.put(each.line, text, ("source",), context.paths().source(value))
        return value
    draft.left_out = f"{value} is a model of Ollama"
    what = "llama-runner models import --from ollama lists what is on this machine; then give its name as source"
    draft.skip(each.line, text, what)
    return value


class _Takes:
    """Handlers of the instructions."""

    @staticmethod
    def parameter(draft: ModelDraft, each: _Instruction, _context: Context) -> None:
        key, _, given = each.value.partition(" ")
        key, value = key.lower(), _unquoted(given.strip())
        text = f"PARAMETER {key} {value}"
        number = _number(value)
        if key in _SAMPLING and number is not None:
            draft.put(each.line, text, ("sampling", _SAMPLING[key]), number)
        elif key in _LLAMA and isinstance(number, int):
            draft.put(each.line, text, ("llama", _LLAMA[key]), number)
        elif key in _FLAGS:
            draft.put(each.line, text, ("llama", _FLAGS[key]), value.lower() in _TRUE)
        elif key == "num_ctx" and isinstance(number, int) and number > 0:
            draft.put(each.line, text, ("ctx_size",), number)
        elif key == "num_thread" and isinstance(number, int) and number > 0:
            draft.put(each.line, text, ("threads",), number)
        elif key == "num_gpu" and isinstance(number, int):
            draft.put(each.line, text, ("gpu_layers",), "auto" if number < 0 else number)
        elif key == "numa" and value.lower() in _TRUE:
            draft.put(each.line, text, ("llama", "numa"), "distribute")
        elif key == "stop":
            draft.skip(each.line, text, "stop words come with requests; those of the model are in its file")
        elif key in _GONE:
            draft.skip(each.line, text, "llama-server has no such option")
        else:
            expected = key in {*_SAMPLING, *_LLAMA, "num_ctx", "num_thread", "num_gpu"}
            draft.skip(each.line, text, "expected a number" if expected else "there is no counterpart")

    @staticmethod
    def system(draft: ModelDraft, each: _Instruction, _context: Context) -> None:
        if each.value.strip():
            draft.put(each.line, f"SYSTEM {each.value}", ("system",), each.value)

    @staticmethod
    def adapter(draft: ModelDraft, each: _Instruction, context: Context) -> None:
        path = context.paths().path(each.value)
        draft.put(each.line, f"ADAPTER {each.value}", ("lora",), [*draft.table.get("lora", ()), path])

    @staticmethod
    def template(draft: ModelDraft, each: _Instruction, _context: Context) -> None:
        note = "a template of Ollama; llama-server takes the Jinja template of the model"
        draft.skip(each.line, f"TEMPLATE {each.value}", note)

    @staticmethod
    def message(draft: ModelDraft, each: _Instruction, _context: Context) -> None:
        draft.skip(each.line, f"MESSAGE {each.value}", "examples of a conversation come with requests")

    @staticmethod
    def license(draft: ModelDraft, each: _Instruction, _context: Context) -> None:
        note = "the licence is in the model's metadata: llama-runner models provenance"
        draft.skip(each.line, f"LICENSE {each.value}", note)

    @staticmethod
    def other(draft: ModelDraft, each: _Instruction, _context: Context) -> None:
        draft.skip(each.line, f"{each.name} {each.value}", "there is no counterpart")


def _instructions(text: str) -> list[_Instruction]:
    lines = text.splitlines()
    found: list[_Instruction] = []
    at = 0
    while at < len(lines):
        number, line = at + 1, lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _INSTRUCTION.fullmatch(line)
        if match is None:
            raise ImportFailed(NAME, "expected an instruction such as FROM, PARAMETER or SYSTEM", number)
        name, value = match[1].upper(), match[2]
        before, mark, rest = _opened(name, value)
        if mark:
            parts = [rest]
            while mark not in parts[-1]:
                if at == len(lines):
                    raise ImportFailed(NAME, f"the text after {name} has no closing {mark}", number)
                parts.append(lines[at])
                at += 1
            value = before + "\n".join(parts).partition(mark)[0]
        found.append(_Instruction(number, name, value if mark else value.strip()))
    return found


def _opened(name: str, value: str) -> tuple[str, str, str]:
    """Return what stands before a quoted text, its quotation mark, and what follows it; no mark for other values."""
    if name == "PARAMETER":
        return "", "", ""
    role = re.match(r"(?i)(system|user|assistant)\s+", value) if name == "MESSAGE" else None
    before = role[0] if role else ""
    rest = value[len(before) :]
    for mark in ('"""', '"'):
        if rest.startswith(mark):
            return before, mark, rest[len(mark) :]
    return "", "", ""


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _number(text: str) -> Any:  # noqa: ANN401 - an integer or a float; None for other text
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    return float(text) if re.fullmatch(r"[+-]?(\d{1,30}\.\d{0,30}|\.\d{1,30})([eE][+-]?\d{1,2})?", text) else None
