"""The architectures that can be converted, and which module knows each.

To add one: write ``families/<family>.py`` with a ``FAMILY`` (read llama.py or bert.py, they are complete), and
name its architectures here. Nothing else has to change. This table is apart from the modules so that listing
the architectures imports none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from llama_runner.convert.errors import UnsupportedArchitecture

if TYPE_CHECKING:
    from llama_runner.convert.families.family import Family

ARCHITECTURES = {
    "BertForMaskedLM": "bert",
    "BertForSequenceClassification": "bert",
    "BertModel": "bert",
    "LLaMAForCausalLM": "llama",
    "LlamaForCausalLM": "llama",
    "LlamaModel": "llama",
    "MistralForCausalLM": "llama",
}


def family_of(architecture: str) -> Family:
    """The family that converts an architecture. Raises `UnsupportedArchitecture`."""
    if architecture not in ARCHITECTURES:
        raise UnsupportedArchitecture(architecture, sorted(ARCHITECTURES))
    module = import_module(f"llama_runner.convert.families.{ARCHITECTURES[architecture]}")
    return cast("Family", module.FAMILY)
