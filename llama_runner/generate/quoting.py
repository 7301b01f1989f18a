"""Writes YAML whose values every parser reads alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llama_runner.generate.errors import CannotGenerate

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z/][\w./-]*", re.ASCII)
"""Texts that need no quotes in any version of YAML, but for ``_WORDS``."""
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))


def check_text(text: str) -> str:
    """Return a text that a file can hold; ``CannotGenerate`` for one with NUL or what is not UTF-8."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise CannotGenerate(f"the value {text!a} has characters that no text file can have")
    return text


def yaml_text(documents: Iterable[Any]) -> str:
    """Return YAML documents. Texts are in ASCII and quotes, unless they are plain words in every version of YAML.

    PyYAML alone would leave ``1e3`` or ``0o17`` without quotes, which are numbers to parsers of YAML 1.2.
    """
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - slow

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # without stubs
        """Writes no anchors, and lists indented below their key."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 - as of yaml
            del data
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:  # noqa: ANN401 - as above
            del indentless
            return super().increase_indent(flow, False)

    def text(dumper: Any, value: str) -> Any:  # noqa: ANN401 - as above
        is_plain = _PLAIN.fullmatch(check_text(value)) and value.lower() not in _WORDS
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if is_plain else '"')

    Dumper.add_representer(str, text)
    written = [
        yaml.dump(each, Dumper=Dumper, sort_keys=False, allow_unicode=False, width=1 << 20, default_flow_style=False)
        for each in documents
    ]
    return "---\n".join(written)


def doubled_dollars(value: Any) -> Any:  # noqa: ANN401 - a document
    """Return a document with each ``$`` in its values doubled: Compose and Kubernetes replace variables there."""
    if isinstance(value, dict):
        return {key: doubled_dollars(each) for key, each in value.items()}
    if isinstance(value, list):
        return [doubled_dollars(each) for each in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def comment(*lines: str) -> str:
    """Return lines as comments of YAML, Dockerfiles, units."""
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
