"""Reads the front matter of README.md, the model card: YAML between two lines of three dashes at the start.

Read as ``gguf.Metadata.load_model_card`` does, whose result is part of the converted bytes, with two differences:
only the start of the file is read, and YAML whose aliases stand for more than they say is refused.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import UnreadableFile, reading
from llama_runner.core.files_of_model_directory import CARD, CARD_HEAD
from llama_runner.core.files_of_model_directory import front_matter as lines_of
from llama_runner.system.files import read_head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_NODES = 300_000
"""Values in the front matter, those that aliases stand for counted each time; these bound its time and memory."""
LONGEST_NUMBER = 400
"""Characters of a number; YAML's numbers to the base of 60 take quadratic time."""


def read(directory: Path) -> dict[str, Any]:
    """Return the front matter; empty if there is none, or no mapping. Raises ``UnreadableFile``."""
    path = directory / CARD
    if not path.is_file():
        return {}
    try:
        with reading(path):
            text = front_matter(path)
    except UnicodeDecodeError as error:
        raise UnreadableFile(path, "its front matter is not UTF-8") from error
    found = _parsed(path, text) if text else None
    return found if isinstance(found, dict) else {}


def head(directory: Path) -> str:
    """Return front matter and text of the model card's start; empty if there is none."""
    try:
        return read_head(directory / CARD, CARD_HEAD).decode("utf-8", "replace")
    except OSError:
        return ""


def front_matter(path: Path) -> str:
    """Return the text between the fences of a model card; empty if there is none."""
    head = read_head(path, CARD_HEAD + 1)
    lines, is_closed = lines_of(head)
    if len(head) > CARD_HEAD and not is_closed:
        raise UnreadableFile(path, f"its front matter does not end within {CARD_HEAD} bytes")
    text = "".join(f"{line}\n" for line in lines)
    text.encode("utf-8", "surrogateescape").decode("utf-8")
    return text


def _parsed(path: Path, text: str) -> Any:  # noqa: ANN401 - YAML is anything
    """Return the parsed YAML."""
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - not before it is needed

    # "no" is Norway, and tabs are not allowed: both as gguf does it
    text = text.replace("- no\n", '- "no"\n').replace("\t", "  ")
    try:
        loader = _loader()(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > MOST_NODES:
            raise _TooLarge
        return loader.construct_document(node)
    except _TooLarge:
        raise UnreadableFile(path, f"its front matter has more than {MOST_NODES} values, or an endless one") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UnreadableFile(path, "its front matter is not YAML") from error


class _TooLarge(Exception):
    """The YAML takes too long, or more memory than its text."""


@cache
def _loader() -> Any:  # noqa: ANN401 - yaml is not typed
    import yaml  # noqa: PLC0415 - as above

    numbers = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

    class Bounded(yaml.SafeLoader):  # type: ignore[misc]  # as above
        """Counts the values while they are read."""

        nodes = 0

        def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 - as above
            self.nodes += 1
            if self.nodes > MOST_NODES:
                raise _TooLarge
            node = super().compose_node(parent, index)
            if node.tag in numbers and isinstance(node.value, str) and len(node.value) > LONGEST_NUMBER:
                raise _TooLarge
            return node

    return Bounded


def _expanded(node: Any, known: dict[int, int]) -> int:  # noqa: ANN401 - yaml is not typed
    """Return the number of values of a node with aliases expanded; a recursive one counts as too many."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES  # while it is counted
        known[id(node)] = 1 + sum(_expanded(child, known) for child in _children(node))
    return known[id(node)]


def _children(node: Any) -> Iterator[Any]:  # noqa: ANN401 - as above
    if isinstance(node.value, str):
        return
    for child in node.value:
        yield from child if isinstance(child, tuple) else (child,)
