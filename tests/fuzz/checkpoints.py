"""What the targets of a model directory's small files share: sound checkpoints, and the look at a changed one."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from llama_runner import convert
from llama_runner.cli.convert_cmds import describe
from llama_runner.core.errors import LlamaRunnerError
from llama_runner.request.model_inspection import inspect
from tests.convert.cases import CASES
from tests.fuzz.harness import check_error, check_text, overlaid

BASES = (
    *("cases:card", "cases:sharded-tied", "cases:llama3", "cases:gpt2-legacy-files", "cases:spm-additions"),
    *("cases:code-llama", "cases:template-json", "cases:template-named", "cases:template-directory", "cases:bert-mean"),
    *("cases:bert-word-list", "cases:bert-special-files", "chinese:hunyuan-turns", "distilbert:pooled", "encoders:xlm"),
    *("modernbert:modernbert-few", "nomic:nomic", "nomic:experts-pieces", "quantized:modelopt", "slow:gpt2-added"),
    *("relatives:internlm2-chat", "slow:gpt2", "t5:t5-old"),
)
"""Groups of cases and their titles: all names of small files that are read, and all kinds of vocabularies."""


@cache
def base(name: str) -> Path:
    """Return a sound checkpoint; each process makes its own."""
    group, _, title = name.partition(":")
    cases = CASES if group == "cases" else import_module(f"tests.convert.families.{group}").CASES
    directory = Path(tempfile.mkdtemp(prefix="llama-runner-fuzz-base-")) / cases[title].name
    cases[title].build(directory)
    return directory


@cache
def documents(name: str) -> dict[str, Any]:
    """Return the small files of a checkpoint: JSON parsed, others as bytes."""
    found: dict[str, Any] = {}
    directory = base(name)
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.suffix != ".safetensors" and path.name != "config.json":
            file = path.relative_to(directory).as_posix()
            found[file] = json.loads(path.read_bytes()) if path.suffix == ".json" else path.read_bytes()
    return found


def look(name: str, files: dict[str, str]) -> None:
    """Look at a checkpoint with some of its files replaced, in every way that there is."""
    with overlaid(base(name), files) as directory:
        try:
            found = inspect(directory)
            json.dumps(found.to_json(), allow_nan=False)
            check_text(describe(found, tensors=True))
        except LlamaRunnerError as error:
            check_error(error)
        convert.inspect(directory)
