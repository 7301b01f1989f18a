"""Chat templates from every place where they may stand, and which of them counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import TEMPLATE, Case
from tests.convert.checkpoints import copy_tokenizer, llama, write_json

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT = {"name": "default", "template": TEMPLATE}
TOOLS = {"name": "tool use", "template": "tools"}


def _templates(
    settings: object = "none",
    *,
    jinja: str | None = None,
    json: object = None,
    more: tuple[str, ...] = (),
    configured: bool = True,
) -> Case:
    """A case with ``settings`` as chat_template in tokenizer_config.json, and files with others."""

    def build(directory: Path) -> None:
        llama(directory)
        copy_tokenizer(directory, "byte-fallback")
        if configured:
            said: dict[str, Any] = {} if settings == "none" else {"chat_template": settings}
            write_json(directory / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", **said})
        if jinja is not None:
            (directory / "chat_template.jinja").write_text(jinja, encoding="utf-8")
        if json is not None:
            write_json(directory / "chat_template.json", json)
        for name in more:
            (directory / "additional_chat_templates").mkdir(exist_ok=True)
            (directory / "additional_chat_templates" / f"{name}.jinja").write_text(f"{{# {name} #}}", encoding="utf-8")

    return Case(build)


CASES = {
    "single": _templates(TEMPLATE),
    "null": _templates(None, jinja="file"),
    "object": _templates({"default": TEMPLATE}),
    "settings-before-file": _templates("settings", jinja="file", json={"chat_template": "json"}),
    "file-before-json": _templates(jinja="file\r\nwith line ends\n", json={"chat_template": "json"}),
    "file-without-settings": _templates(jinja="file", configured=False),
    "json-list": _templates(json={"chat_template": [DEFAULT, TOOLS]}),
    "json-empty": _templates(json={}),
    "named-default-alone": _templates([DEFAULT]),
    "named-without-default": _templates([TOOLS]),
    "named-oddly": _templates([DEFAULT, {"name": "ä-b.c", "template": "odd"}, {"name": "", "template": "none"}]),
    "named-incompletely": _templates([DEFAULT, {"name": "rag"}]),
    "named-twice": _templates([{"name": "default", "template": "first"}, DEFAULT]),
    "directory": _templates(jinja=TEMPLATE, more=("rag use",)),
    "directory-without-file": _templates(more=("rag",)),
    "directory-and-settings": _templates("settings", jinja=TEMPLATE, more=("rag",)),
    "emoji": _templates("{{ '🙂' }}\n\t{%- if x -%}é{%- endif -%}"),
}
