"""Reads YAML of others into values that know their lines, within limits. Tags make no objects; nothing is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.config.import_report import ImportFailed
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 40
_MOST = 50_000
"""Nodes of a file, those that aliases repeat included."""
_PLAIN = "tag:yaml.org,2002:"


class YamlNode(Value):
    """A value of a YAML file."""

    value: Any
    """A dictionary or a list of nodes, or a text, number, truth value or None."""
    line: int
    """The line on which the value begins, counted from 1; of a value in a mapping, that of its key."""
    lines: tuple[tuple[int, str], ...] = ()
    """The lines of a text in a block (``|`` or ``>``), with their numbers."""

    def get(self, key: str) -> YamlNode | None:
        """Return the value of a key; None without one, and for what is no mapping."""
        found = self.value.get(key) if isinstance(self.value, dict) else None
        return None if found is None or found.value is None else found

    def items(self) -> Iterator[tuple[str, YamlNode]]:
        """Iterate over the keys and values of a mapping; nothing for other values."""
        if isinstance(self.value, dict):
            yield from self.value.items()

    def elements(self) -> list[YamlNode]:
        """Return the elements of a list; one for a single value."""
        if isinstance(self.value, list):
            return self.value
        return [] if self.value is None else [self]

    @property
    def text(self) -> str:
        """A single value as text, as YAML writes truth values; empty for others."""
        if self.value is None or isinstance(self.value, (dict, list)):
            return ""
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)

    def plain(self) -> Any:  # noqa: ANN401 - as YAML has it
        """Return the value without lines; None values are left out."""
        if isinstance(self.value, dict):
            return {key: each.plain() for key, each in self.value.items() if each.value is not None}
        if isinstance(self.value, list):
            return [each.plain() for each in self.value if each.value is not None]
        return self.value

    def shown(self, key: str) -> str:
        """Return a key with this value for the report."""
        return f"{key}: {self.text}" if not isinstance(self.value, (dict, list)) else f"{key}: …"


def read_yaml(text: str, format_name: str) -> YamlNode:
    """Return the document in a text. Raises ``ImportFailed`` for what is no YAML or exceeds a limit."""
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - slow, and only for an import

    try:
        loader = _loader(text, format_name)
        try:
            node = loader.get_single_node()
            return _Builder(loader, text, format_name).build(node, 1) if node else YamlNode(None, 1)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not YAML"
        raise ImportFailed(format_name, f"not YAML: {problem}", mark and mark.line + 1) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ImportFailed(format_name, f"not YAML: {error}") from None


def _loader(text: str, format_name: str) -> Any:  # noqa: ANN401 - PyYAML's
    """Return a loader that composes nodes of limited depth. libyaml parses seven times as fast, where it is there."""
    from yaml.composer import Composer  # type: ignore[import-untyped]  # noqa: PLC0415 - as above
    from yaml.constructor import SafeConstructor  # type: ignore[import-untyped]  # noqa: PLC0415
    from yaml.loader import SafeLoader  # type: ignore[import-untyped]  # noqa: PLC0415
    from yaml.resolver import Resolver  # type: ignore[import-untyped]  # noqa: PLC0415

    class Limited:
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 - PyYAML's
            self.depth += 1
            if self.depth > _DEEPEST:
                line = self.peek_event().start_mark.line + 1  # type: ignore[attr-defined]
                raise ImportFailed(format_name, f"nested more than {_DEEPEST} deep", line)
            try:
                return super().compose_node(parent, index)  # type: ignore[misc]
            finally:
                self.depth -= 1

    try:
        from yaml.cyaml import CParser  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        return type("Loader", (Limited, SafeLoader), {})(text)

    class Loader(Limited, Composer, CParser, SafeConstructor, Resolver):  # type: ignore[misc]
        def __init__(self) -> None:
            CParser.__init__(self, text)
            for each in (Composer, SafeConstructor, Resolver):
                each.__init__(self)

    return Loader()


class _Builder:
    def __init__(self, loader: Any, text: str, format_name: str) -> None:  # noqa: ANN401 - PyYAML's
        self._loader, self._lines, self._format = loader, text.splitlines(), format_name
        self._count = 0
        self._open: list[Any] = []

    def build(self, node: Any, line: int) -> YamlNode:  # noqa: ANN401 - PyYAML's
        import yaml  # noqa: PLC0415 - loaded by now

        self._count += 1
        if self._count > _MOST:
            raise ImportFailed(self._format, f"more than {_MOST} values, aliases included", line)
        if any(each is node for each in self._open):
            raise ImportFailed(self._format, "an alias contains itself", line)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return YamlNode([self.build(each, each.start_mark.line + 1) for each in node.value], line)
            return YamlNode(self._mapping(node), line)
        finally:
            self._open.pop()

    def _mapping(self, node: Any) -> dict[str, YamlNode]:  # noqa: ANN401 - as above
        merged: dict[str, YamlNode] = {}
        found: dict[str, YamlNode] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not hasattr(key, "value") or not isinstance(key.value, str):
                raise ImportFailed(self._format, "a key is no text", line)
            built = self.build(value, line)
            if key.tag == f"{_PLAIN}merge":
                for each in built.elements():
                    merged = {**dict(each.items()), **merged}
            elif key.value in found:
                raise ImportFailed(self._format, f"the key {key.value!r} is given twice", line)
            else:
                found[key.value] = built
        return {**merged, **found}

    def _scalar(self, node: Any, line: int) -> YamlNode:  # noqa: ANN401 - as above
        if node.style in ("|", ">"):
            start, end = node.start_mark.line + 1, node.end_mark.line
            return YamlNode(node.value, line, tuple(enumerate(self._lines[start:end], start + 1)))
        kind = node.tag.removeprefix(_PLAIN)
        if kind in ("int", "float", "bool", "null") and len(node.value) < 64:  # noqa: PLR2004 - no larger number is meant
            try:
                value = self._loader.construct_object(node)
            except (ValueError, OverflowError):  # 08, and other texts that only look like numbers
                return YamlNode(node.value, line)
            if isinstance(value, float) and value - value != 0:
                return YamlNode(node.value, line)
            return YamlNode(value, line)
        return YamlNode(node.value, line)
