"""The text of a new configuration file with one model, and the name that a model gets."""

from __future__ import annotations

import re
from typing import Any

from llama_runner.config.edit import model_text
from llama_runner.config.read_config_file import can_be_name
from llama_runner.config.schema import FILE_NAME

_HEAD = f"""\
#:schema ./{FILE_NAME}
# Models that llama-runner runs by name: `llama-runner run {{name}}`, or all of them with `llama-runner up`.
# `llama-runner config check` checks this file, `config show {{name}} --origin` says where each value comes from.

# What all models share:
# [defaults]
# threads = 8

"""

COMMENTS = {
    "quantization": "Type of the weights; a smaller one takes less memory and is less exact.",
    "filename": "The file of the repository that is used.",
    "ctx_size": 'Tokens of context; "auto" takes what fits into memory.',
    "preset": "Options for a purpose: `llama-runner presets list`.",
    "host": "Other machines may connect, with a key.",
    "api_key_file": "The keys that the server accepts, one a line.",
    "projector": "Whether images are understood, for a model that has a projector.",
    "llama": "Options of llama-server: `llama-runner run -- --help`.",
}
"""What a new file says of the keys."""


def new_file_text(name: str, table: dict[str, Any], *, schema: bool = True) -> str:
    """Return the text of a file that declares one model."""
    head = _HEAD.replace("{name}", name if re.fullmatch(r"[\w.:/-]+", name) else f"'{name}'")
    return (head if schema else head.partition("\n")[2]) + model_text(name, table, COMMENTS)


def name_for(source: str) -> str:
    """Return a short name for a model: that of its repository, file or directory without what says the format."""
    last = re.split(r"[/\\]", source.split("?", maxsplit=1)[0].rstrip("/\\"))[-1]
    last = last.partition(":")[0].removesuffix(".gguf")
    short = re.sub(r"(?i)[-_.](gguf|instruct|it|chat)\b", "", last).lower() or last.lower()
    short = re.sub(r"[^\w.-]+", "-", short).strip("-. ")
    return short if can_be_name(short) else "model"
