"""Compares the original's tokenizer and template with what llama.cpp does with a GGUF file."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.convert.official_script import splits_by_structure
from llama_runner.core.errors import StepError
from llama_runner.engine.errors import ProgramFailed
from llama_runner.fidelity import known_differences as known
from llama_runner.fidelity.conversations import Conversation, conversations_for
from llama_runner.fidelity.difficult_lines import Line, lines_for
from llama_runner.fidelity.llama_cpp_answers import LlamaCpp
from llama_runner.fidelity.original_tokenizer import well_formed
from llama_runner.fidelity.report import Finding, Report, shown
from llama_runner.fidelity.vocabulary import vocabulary_findings
from llama_runner.llama_cpp.toolchain import PASSED_ENVIRONMENT
from llama_runner.system.files import read_json

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from llama_runner.core.step_interfaces import Workspace
    from llama_runner.fidelity.original_tokenizer import Original
    from llama_runner.fidelity.vocabulary_of_gguf import MadeFile

DRIVER = Path(__file__).with_name("original_driver.py")
UNEXPLAINED_PERCENT, OTHER_NAME_PERCENT = 5, 1
"""With more unexplained lines than this, the file is taken to be wrong. The second limit is for a file whose
pre-tokenizer has another name than the one that the original's is recognised as."""
LARGEST_ANSWER = 256 << 20
_EXAMPLES = 6
_FRAMED = ("", "Hello, world!", "a  b", "日本語")
_LONGEST = 400


def compare(
    original: Original,
    made: MadeFile,
    program: Path,
    workspace: Workspace,
    python: Path | None,
    environ: Mapping[str, str],
) -> Report:
    """Return what differs. ``python`` is one with ``tokenizers`` and Jinja; None: this one."""
    template = original.template
    with well_formed(original.directory):
        lines = lines_for(original)
        conversations = [] if template is None else conversations_for(template)
        findings = vocabulary_findings(original, made)
        rules, changed = known.rules_for(original, made), known.as_llama_cpp(original, made)
    theirs = _ask_original(original, changed, lines, conversations, workspace, python, environ)
    tokens: dict[str, Any] = {}
    rendered: dict[str, Any] = {}
    with LlamaCpp(program, made, workspace) as ours:
        if (why := _not_compared(theirs, original)) is None:
            tokens, more = _compare_tokens(original, made, lines, theirs, ours, rules, has_findings=bool(findings))
            findings += more + _compare_framing(theirs, ours, original)
        elif not theirs.get("prompts"):
            return Report(not_checked=why)
        else:
            findings.append(Finding("tokens", f"not compared: {why}", "unknown"))
        if template is not None or made.template is not None:
            rendered, more = _compare_templates(original, made, conversations, theirs, ours)
            findings += more
        named, ends = ours.special()
    special, more = _special(original, made, named, ends, _put_last(theirs))
    tools: dict[str, str] = {name: str(theirs[name]) for name in ("tool", "jinja") if name in theirs}
    return Report(tuple(findings + more), tokens, rendered, special, tools=tools)


def _not_compared(theirs: Mapping[str, Any], original: Original) -> str | None:
    if missing := theirs.get("missing"):
        return f"the Python package {missing} is not installed, which the original's tokenizer needs"
    if reason := theirs.get("unreadable"):
        return f"the original's tokenizer cannot be read: {reason[:_LONGEST]}"
    return None if original.texts else "the original has no vocabulary"


def _ask_original(
    original: Original, changed: dict[str, Any] | None, lines: Sequence[Line], conversations: Sequence[Conversation],
    workspace: Workspace, python: Path | None, environ: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    """Run the original's tokenizer and template in a process of their own, and return what it says."""
    folder = workspace.scratch
    variants: dict[str, str] = {}
    document = None
    if original.document is not None:
        document = folder / "tokenizer.json"
        document.write_text(json.dumps(original.document), encoding="utf-8")
        if changed is not None:
            variants["as_llama_cpp"] = str(folder / "as_llama_cpp.json")
            (folder / "as_llama_cpp.json").write_text(json.dumps(changed), encoding="utf-8")
    job = {
        "tokenizer": None if document is None else str(document),
        "pieces": None if original.pieces is None else str(original.pieces),
        "added": {str(entry["content"]): number for number, entry in original.added.items()},
        "lines": [line.text for line in lines],
        "framed": list(_FRAMED),
        "variants": variants,
        "template": original.template,
        "specials": dict(original.specials),
        "conversations": {one.name: one.variables() for one in conversations},
    }
    question, answer = folder / "question.json", folder / "answer.json"
    question.write_text(json.dumps(job), encoding="utf-8")
    argv: list[str | os.PathLike[str]] = [python or sys.executable, "-I", "-B", DRIVER, question, answer]
    env = {name: environ[name] for name in PASSED_ENVIRONMENT if name in environ}
    try:
        workspace.run_program(argv, env={**env, "TOKENIZERS_PARALLELISM": "false"}, cwd=folder)  # type: ignore[arg-type]
    except ProgramFailed as error:
        ended = (
            "took too long" if any("Timeout" in line for line in error.tail) else f"ended with status {error.status}"
        )
        raise StepError(f"the original's tokenizer and template {ended}; log: {error.log}") from None
    found: dict[str, Any] = read_json(answer, LARGEST_ANSWER)
    return found


def _compare_tokens(
    original: Original,
    made: MadeFile,
    lines: Sequence[Line],
    theirs: Mapping[str, Any],
    ours: LlamaCpp,
    rules: Sequence[known.Rule],
    *,
    has_findings: bool,
) -> tuple[dict[str, Any], list[Finding]]:
    examples = list[dict[str, Any]]()
    reasons: Counter[str] = Counter()
    classes: dict[str, Counter[str]] = {}
    explained = theirs.get("as_llama_cpp") or [None] * len(lines)
    found = ours.tokens([line.text for line in lines])
    for line, want, got, like in zip(lines, theirs["plain"], found, explained, strict=True):
        if want is None:
            continue
        counts = classes.setdefault(line.kind, Counter(lines=0, identical=0, explained=0, unexplained=0))
        counts["lines"] += 1
        if got == want:
            counts["identical"] += 1
            continue
        reason = known.SPLIT_BEFORE if like == got else None
        reason = next((rule.reason for rule in rules if rule.concerns(line.text)), reason)
        counts["unexplained" if reason is None else "explained"] += 1
        if reason is not None:
            reasons[reason] += 1
        elif len(examples) < _EXAMPLES:
            examples.append(
                {"line": line.text[:_LONGEST], "class": line.kind, "original": want[:20], "llama_cpp": got[:20]}
            )
    total: Counter[str] = Counter()
    for counts in classes.values():
        total.update(counts)
    findings = [Finding("tokens", f"{reason}: {count} lines", "llama.cpp") for reason, count in reasons.most_common()]
    if total["unexplained"]:
        findings.append(_unexplained(original, made, total, classes, has_findings=has_findings))
    numbers = {name: total[name] for name in ("lines", "identical", "explained", "unexplained")}
    told = {kind: {name: counts[name] for name in numbers} for kind, counts in classes.items()}
    return {**numbers, "classes": told, "reasons": dict(reasons), "examples": examples}, findings


def _unexplained(
    original: Original, made: MadeFile, total: Counter[str], classes: Mapping[str, Counter[str]], *, has_findings: bool
) -> Finding:
    """Return the finding about lines that differ for no known reason."""
    wrong = total["unexplained"]
    first = ", ".join(kind for kind, counts in classes.items() if counts["unexplained"])
    text = f"{wrong} of {total['lines']} lines have other tokens for no known reason: {first}"
    structure = splits_by_structure(original.directory) if made.kind == "gpt2" else None
    if structure not in (None, made.pre_tokenizer) and not has_findings:
        is_wrong = 100 * wrong > OTHER_NAME_PERCENT * total["lines"]
        said = f"it is {structure} by its structure, in the file {made.pre_tokenizer}; {text}"
        return Finding(f"pre-tokenizer {made.pre_tokenizer}", said, "file" if is_wrong else "unknown")
    is_wrong = 100 * wrong > UNEXPLAINED_PERCENT * total["lines"]
    return Finding("tokens", text, "file" if is_wrong else "unknown")


def _compare_framing(theirs: Mapping[str, Any], ours: LlamaCpp, original: Original) -> list[Finding]:
    """Compare what is put before and after a text."""
    plain, framed = ours.tokens(_FRAMED[1:]), ours.tokens(_FRAMED[1:], framed=True)
    wanted = list(zip(theirs["framed"][1:], _FRAMED[1:], strict=True))
    for mine, around, (want, text) in zip(plain, framed, wanted, strict=True):
        if want is None:
            continue
        first, last = _around(around, mine)
        if original.framing is not None:
            numbers = original.numbers
            begins, ends = (numbers.get(original.specials.get(f"{kind}_token", "")) for kind in ("bos", "eos"))
            want_first = [begins] if original.framing[0] and begins is not None else []
            want_last = [ends] if original.framing[1] and ends is not None else []
        else:
            want_first, want_last = _ends_of(want, theirs["plain_framed"][_FRAMED.index(text)])
        found = []
        if first != want_first:
            found.append(
                Finding(
                    "BOS",
                    f"before a text the original puts {want_first or 'nothing'}, the file {first or 'nothing'}",
                    "file",
                )
            )
        if last != want_last:
            found.append(
                Finding(
                    "EOS",
                    f"after a text the original puts {want_last or 'nothing'}, the file {last or 'nothing'}",
                    "file",
                )
            )
        if found:
            return found
    return []


def _around(framed: Sequence[int], plain: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return what is before and after ``plain`` in ``framed``."""
    for start in range(len(framed) - len(plain) + 1):
        if list(framed[start : start + len(plain)]) == list(plain):
            return list(framed[:start]), list(framed[start + len(plain) :])
    return list(framed), []


_ends_of = _around


def _compare_templates(
    original: Original, made: MadeFile, conversations: Sequence[Conversation], theirs: Mapping[str, Any], ours: LlamaCpp
) -> tuple[dict[str, Any], list[Finding]]:
    findings = []
    if (made.template or "").rstrip("\n") != (original.template or "").rstrip("\n"):
        what = "has none" if made.template is None else "has another" if original.template is not None else "has one"
        findings.append(Finding("template", f"the original {'has a' if original.template else 'has no'} chat template,"
                                            f" the file {what}", "file"))  # fmt: skip
    if ours.template_error is not None:
        findings.append(Finding("template", f"llama.cpp cannot read it: {shown(ours.template_error)}", "llama.cpp"))
        return {"conversations": len(conversations), "identical": 0, "refused": 0, "different": []}, findings
    if missing := theirs.get("missing_for_template"):
        findings.append(Finding("template", f"not compared: the Python package {missing} is not installed", "unknown"))
        return {}, findings
    different, refused, identical = [], 0, 0
    leading = original.specials.get("bos_token", "")
    for conversation in conversations:
        want = theirs["prompts"].get(conversation.name)
        if want is None:
            refused += 1
            continue
        got, error = ours.prompt(conversation)
        if got is not None and _without(got, leading) == _without(want, leading):
            identical += 1
        else:
            different.append({"name": conversation.name, "error": error, "original": want[:_LONGEST],
                              "llama_cpp": (got or "")[:_LONGEST]})  # fmt: skip
    if different and not findings:
        names = ", ".join(str(one["name"]) for one in different)
        errors = "".join(f"; {one['name']}: {shown(str(one['error']))}" for one in different if one["error"])
        findings.append(Finding("template", f"llama.cpp makes another prompt of {names}{errors}", "llama.cpp"))
    count = len(conversations) - refused
    return {"conversations": count, "identical": identical, "refused": refused, "different": different}, findings


def _without(prompt: str, leading: str) -> str:
    """Return a prompt without the BOS that llama.cpp leaves to its tokenizer."""
    return prompt.removeprefix(leading) if leading else prompt


def _special(
    original: Original, made: MadeFile, named: Mapping[str, int], ends: Sequence[int], last: Sequence[int]
) -> tuple[dict[str, Any], list[Finding]]:
    """Compare the special tokens that have a name, and what ends generation; ``last`` may be put after a text."""
    findings = []
    numbers = original.numbers
    for kind in ("bos", "eos"):
        text, number = original.specials.get(f"{kind}_token"), named.get(kind, made.number(kind))
        want = numbers.get(text or "")
        accepted = {want, *((*original.ends, *last) if kind == "eos" and (not ends or want in ends) else ())}
        if kind == "bos" and not _is_added(original, made):  # then it is never used
            continue
        if want is not None and number not in accepted and made.kind != "bert":
            findings.append(Finding(kind.upper(), f"it is {want} ({shown(str(text))}), in the file {number}", "file"))
    if ends:
        shown_ends = {number: original.texts.get(number, "?") for number in (*original.ends, *ends)}
        if lost := [number for number in original.ends if number not in ends and number < len(made.tokens)]:
            told = ", ".join(f"{number} ({shown(shown_ends[number])})" for number in lost)
            findings.append(Finding("end of generation", f"generation does not end at {told}", "llama.cpp"))
        extra = [number for number in ends if number not in original.ends and number not in original.added]
        if extra:
            told = ", ".join(f"{number} ({shown(shown_ends[number])})" for number in extra)
            findings.append(
                Finding("end of generation", f"it also ends at {told}, which the model may write", "llama.cpp")
            )
    special: dict[str, Any] = {kind: named.get(kind, made.number(kind)) for kind in ("bos", "eos", "eot")}
    return {**{name: number for name, number in special.items() if number is not None}, "ends": list(ends)}, findings


def _put_last(theirs: Mapping[str, Any]) -> list[int]:
    """Return what tokenizer.json puts after a text, whether the tokenizer's class asks for it or not."""
    framed, plain = theirs.get("framed") or [[]], theirs.get("plain_framed") or [[]]
    return _around(framed[-1] or [], plain[-1] or [])[1]


def _is_added(original: Original, made: MadeFile) -> bool:
    return bool(made.metadata.get("tokenizer.ggml.add_bos_token", made.kind == "llama")) and original.framing != (
        False,
        False,
    )
