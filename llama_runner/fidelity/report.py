"""The result of a check: what was compared, what differs, and whose difference it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.immutable_values import Value, field
from llama_runner.core.printable_text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

Cause = Literal["file", "llama.cpp", "unknown"]
"""``file``: the GGUF file says something else than the original. ``llama.cpp``: the file is right, and llama.cpp does
this otherwise. ``unknown``: the file says the same, and no known difference explains the result."""

VERSION = 1
"""Version of the lines, conversations and rules; raised when a model would be judged otherwise."""
_SHOWN = 60


class Finding(Value):
    """One difference: the part of the model, a sentence, and its cause."""

    part: str
    text: str
    cause: Cause

    def to_json(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return {"part": self.part, "text": self.text, "cause": self.cause}


class Report(Value):
    """What a check found. ``facts`` and ``of_facts`` turn it into the facts of a record and back."""

    findings: tuple[Finding, ...] = ()
    tokens: Mapping[str, Any] = field(default_factory=dict)
    """``lines``, ``identical``, ``explained``, ``unexplained``, ``classes``, ``examples``; empty: not compared."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """``conversations``, ``identical``, ``refused``, ``different``; empty: the model has none."""
    special: Mapping[str, Any] = field(default_factory=dict)
    """``bos``, ``eos``, ``eot``, ``ends``."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """Figures of the logits by file, ``base`` and ``model``; empty: not measured."""
    tools: Mapping[str, str] = field(default_factory=dict)
    not_checked: str = ""
    """Why nothing could be compared; empty: it was."""

    @property
    def failed(self) -> bool:
        """Whether the file differs from the original."""
        return any(finding.cause == "file" for finding in self.findings)

    @property
    def differs(self) -> bool:
        """Whether anything differs."""
        return bool(self.findings)

    def facts(self) -> dict[str, Any]:
        """Return the report as canonical JSON values."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "tokens": dict(self.tokens),
            "template": dict(self.template),
            "special": dict(self.special),
            "numbers": dict(self.numbers),
            "tools": dict(self.tools),
            "not_checked": self.not_checked,
        }

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Report:
        """Return the report of a record; what has another type than this version writes is left out."""
        found = facts.get("findings")
        findings = tuple(
            Finding(str(one.get("part")), str(one.get("text")), one["cause"])
            for one in (found if isinstance(found, list) else ())
            if isinstance(one, dict) and one.get("cause") in ("file", "llama.cpp", "unknown")
        )
        parts = {name: facts[name] for name in ("tokens", "template", "special", "numbers", "tools")
                 if isinstance(facts.get(name), dict)}  # fmt: skip
        return cls(findings, **parts, not_checked=str(facts.get("not_checked") or ""))

    def summary(self) -> str:
        """Return the result in one line."""
        if self.not_checked:
            return f"not checked: {self.not_checked}"
        said = []
        if self.tokens:
            said.append(f"{self.tokens['identical']} of {self.tokens['lines']} lines have the same tokens")
        if self.template:
            said.append(
                f"{self.template['identical']} of {self.template['conversations']} conversations the same prompt"
            )
        if self.numbers:
            said.append(", ".join(f"KL divergence of {one['type']} {one['kld_mean']}" for one in self.numbers.values()))
        if wrong := [finding.part for finding in self.findings if finding.cause == "file"]:
            said.append(f"wrong in the file: {', '.join(dict.fromkeys(wrong))}")
        return ", ".join(said) or "nothing to compare"

    def lines(self) -> list[str]:
        """Return the whole result as text for people."""
        if self.not_checked:
            return [f"not checked: {self.not_checked}"]
        lines = []
        if told := self.tokens:
            lines.append(
                f"tokens    {told['identical']} of {told['lines']} lines identical, {told['explained']} differ as"
                f" llama.cpp is known to, {told['unexplained']} for no known reason"
            )
            for kind, counts in told["classes"].items():
                if different := counts["lines"] - counts["identical"]:
                    lines.append(f"            {kind}: {different} of {counts['lines']}")
            lines += [
                f"            {shown(one['line'])}: {one['original']}, llama.cpp {one['llama_cpp']}"
                for one in told["examples"]
            ]
        if told := self.template:
            refused = f", {told['refused']} refused by the template" if told["refused"] else ""
            lines.append(f"template  {told['identical']} of {told['conversations']} conversations identical{refused}")
        if told := self.special:
            names = ", ".join(f"{name} {told[name]}" for name in ("bos", "eos", "eot") if told.get(name) is not None)
            lines.append(
                f"special   {names or 'none'}; ends at {', '.join(map(str, told.get('ends') or ())) or 'unknown'}"
            )
        if told := self.numbers:
            lines += [
                f"numbers   {one['type']}: mean KL divergence {one['kld_mean']} (usual: up to {one['limit']}), highest"
                f" {one['kld_max']}, same best token {one['same_top_percent']} %, over {one['tokens']} tokens"
                for one in told.values()
            ]
        lines += [f"{_WORDS[finding.cause]:<10}{finding.part}: {finding.text}" for finding in self.findings]
        return lines


_WORDS: dict[Cause, str] = {"file": "error", "llama.cpp": "llama.cpp", "unknown": "warning"}


def shown(text: str) -> str:
    """Return a line of text for a message: quoted, without control characters, at most sixty characters."""
    return repr(printable(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"))
