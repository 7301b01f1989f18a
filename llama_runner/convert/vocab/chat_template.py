"""Finds the chat template of a checkpoint and writes it into the metadata.

Several named templates are listed in the order of the model's file, where the official script has them in the random
order of a Python set.
"""

from __future__ import annotations

from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_directory import ModelDirectory

NAME_CHARACTERS = frozenset(ascii_letters + digits)


def find_template(source: ModelDirectory, settings: Mapping[str, Any]) -> str | list[Any] | None:
    """Return the chat template or templates; tokenizer_config.json precedes separate files."""
    separate: Any = None
    if source.has("chat_template.jinja"):
        separate = source.text("chat_template.jinja")
        others = sorted(source.path("additional_chat_templates").glob("*.jinja"))
        if others:
            named = [{"name": path.stem, "template": source.text(f"{path.parent.name}/{path.name}")} for path in others]
            separate = [{"name": "default", "template": separate}, *named]
    elif source.has("chat_template.json"):
        separate = source.optional_object("chat_template.json").get("chat_template")
    template = settings.get("chat_template", separate)
    return template if isinstance(template, str | list) else None


def write_templates(values: KeyValues, template: str | list[Any] | None) -> None:
    """Write one template, or several by their names; the one called ``default`` is the usual one."""
    if isinstance(template, list):
        default, names = None, []
        for choice in template:
            if not isinstance(choice, dict):
                continue
            name = "".join(c if c in NAME_CHARACTERS else "_" for c in str(choice.get("name", "")))
            text = choice.get("template")
            if not name or not isinstance(text, str):
                continue
            if name == "default":
                default = text
                continue
            if name not in names:
                names.append(name)
            values.string(f"tokenizer.chat_template.{name}", text)
        values.strings("tokenizer.chat_templates", names)
        template = default
    if template is not None:
        values.string("tokenizer.chat_template", template)
