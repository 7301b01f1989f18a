"""Records of artifacts that were just made here, or fetched from a remote store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.artifact_record import Record, Stamp, portable_noted
from llama_runner.core.source import Source
from llama_runner.core.step import all_inputs, first_node, inputs, noted_inputs, recipe_of
from llama_runner.system.utc_time import utc_text
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step import Step
    from llama_runner.core.step_interfaces import Sources

_LONGEST = 100
"""Characters of a text that another machine wrote into a record."""


def made_record(
    step: Step,
    key: Key,
    digests: Mapping[str, Digest],
    output: tuple[Digest, int],
    facts: dict[str, Any],
    sources: Sources,
    *,
    seconds: float,
    log: str | None,
) -> Record:
    """Return the record of an artifact that a step just made; ``output`` is its digest and size."""
    made = {
        "at": utc_text(),
        "seconds": seconds,
        "kept": not step.transient,
        "by": f"llama_runner {__version__}",
        "log": log,
    }
    return _record(step, key, digests, output, sources).replace(
        noted={**_noted_inputs(step, digests), **step.tools}, facts=facts, made=made
    )


def fetched_record(
    step: Step,
    key: Key,
    digests: Mapping[str, Digest],
    theirs: Record,
    facts: dict[str, Any],
    sources: Sources,
    *,
    remote: str,
    kept: bool,
) -> Record:
    """Return the record of an artifact with the record ``theirs`` in the remote store.

    What decides its key and where its source is comes from this machine; when and by which tools it was made, from
    theirs.
    """
    made: dict[str, Any] = {"fetched": {"at": utc_text(), "from": remote}, "kept": kept, "log": None}
    for name, kinds in (("at", str), ("by", str), ("seconds", (int, float))):
        value = theirs.made.get(name)
        if isinstance(value, kinds) and not isinstance(value, bool):
            made[name] = value[:_LONGEST] if isinstance(value, str) else value
    noted = {**_noted_inputs(step, digests), **step.tools}
    told = portable_noted(theirs.noted)
    for name in (*noted_inputs(step), *step.tools):  # the tools that made it; of compilers this machine has paths
        if name in told and (name not in step.tools or set(told[name]) == set(_members(step.tools[name]))):
            noted[name] = told[name]
    return _record(step, key, digests, (theirs.digest, theirs.bytes), sources).replace(
        noted=noted, facts=facts, made=made
    )


def _record(
    step: Step, key: Key, digests: Mapping[str, Digest], output: tuple[Digest, int], sources: Sources
) -> Record:
    first = first_node(step)
    return Record(
        key=key,
        recipe=recipe_of(step, digests),
        digest=output[0],
        bytes=output[1],
        stamp=Stamp(),
        source=sources.origin(first) if isinstance(first, Source) else first.source,
    )


def _noted_inputs(step: Step, digests: Mapping[str, Digest]) -> dict[str, Any]:
    """Return the digests of the tools that are steps, as far as they are known: a fetched artifact needs none."""
    keyed = inputs(step)
    return {name: {"digest": digests[name]} for name in all_inputs(step) if name not in keyed and name in digests}


def _members(value: object) -> Iterable[str]:
    return value if isinstance(value, dict) else ()
