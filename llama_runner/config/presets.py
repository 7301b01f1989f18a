"""Presets of intent: options for a chat, an agent, many users, … as data, and their numbers for one machine and model.

docs/presets.md says where each number comes from. No preset places layers on a GPU: llama-server's ``--fit`` does that.
Imports nothing but values, as every start with a preset reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.config.errors import nearest
from llama_runner.config.parsed_tables import Settings
from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20
LEAST_PER_SLOT = 4096
"""Tokens below which a preset takes fewer slots instead: the context that a server has by default."""
_STEP = 256
"""llama.cpp rounds a context up to a multiple of this."""
_CONTEXT_PART = 0.8
"""Part of the free memory that the context may take."""
_PROMPT_PART = 0.5
"""Part of what is left then that the cache of prompts may take."""
_DEFAULT_PROMPTS = 8192
"""MiB of prompts that llama-server keeps by default."""
_ELEMENT = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32}
_ELEMENT |= {"q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32}
"""Bytes of an element of the KV cache: blocks of 32 elements and their scales."""


class Preset(Settings):
    """Settings under a name."""

    name: str = ""
    purpose: str = ""
    """What it is for, in one sentence."""


class MachineFacts(Value):
    """What the numbers of a preset depend on."""

    memory: int
    """Bytes that are free for the context and for kept prompts: without weights, work space and process."""
    kv_bytes: int
    """Bytes of the KV cache for one token, with 16 bits for each element."""
    trained: int
    """Tokens of context that the model was trained for; at least 1."""


PRESETS: dict[str, Settings] = {
    preset.name: preset
    for preset in (
        Preset(
            name="chat",
            purpose="One person in a chat program, which sends short requests of its own beside the conversation.",
            options={"ctx_size": 16384},
            llama={"parallel": 2},
        ),
        Preset(
            name="agent",
            purpose="A coding agent: one long conversation, with as much context as fits.",
            options={"ctx_size": "auto"},
            llama={"parallel": 1, "cache-type-k": "q8_0", "cache-type-v": "q8_0", "flash-attn": "on"},
        ),
        Preset(
            name="many-users",
            purpose="Several people at once, who share one context.",
            options={"ctx_size": 32768},
            llama={"parallel": 8, "kv-unified": True},
        ),
        Preset(
            name="embeddings",
            purpose="Vectors for search; each input is computed in one batch.",
            options={"purpose": "embeddings"},
        ),
        Preset(
            name="low-memory",
            purpose="The least memory at almost the usual speed: one conversation, and no prompts are kept.",
            llama={
                "parallel": 1,
                "cache-type-k": "q8_0",
                "cache-type-v": "q8_0",
                "flash-attn": "on",
                "cache-ram": 0,
                "ubatch-size": 128,
                "load-mode": "none",
            },
        ),
        Preset(
            name="latency",
            purpose="The shortest time to the first token: one conversation, always loaded.",
            llama={"parallel": 1},
            pin=True,
            preload=True,
        ),
        Preset(
            name="batch",
            purpose="The most tokens a second in all, for a program that sends many prompts at once.",
            options={"ctx_size": 65536},
            llama={"parallel": 16, "kv-unified": True, "cache-ram": 0},
        ),
    )
}
"""The presets that are built in, by name."""


def preset_of(name: str, known: Mapping[str, Settings]) -> Settings:
    """Return the preset of a name; raises ``UsageError`` with the nearest name without one."""
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near}?" if near else f"the presets are {', '.join(known)}"
        raise UsageError(f"there is no preset {name!r}", hint=hint)
    return known[name]


def kv_bytes(preset: Settings, at_16_bits: int) -> int:
    """Return the bytes of the KV cache for one token with the cache types of a preset. Pure."""
    kinds = (str(preset.llama.get(name, "f16")) for name in ("cache-type-k", "cache-type-v"))
    return max(1, round(sum(at_16_bits / 2 * _ELEMENT.get(kind, 2.0) / 2 for kind in kinds)))


def for_machine(preset: Settings, facts: MachineFacts) -> Settings:
    """Return the preset with the numbers for a machine and a model. Pure.

    The context is what the preset says, at most what the model was trained for in each slot, and at most four fifths
    of the free memory; then prompts get half of what is left. Where slots get less than 4096 tokens, there are fewer.
    Options that the preset leaves to llama-server stay unset.
    """
    wanted = preset.options.get("ctx_size")
    if not isinstance(wanted, int) and wanted != "auto":
        return preset
    given = preset.llama.get("parallel")
    slots = given if isinstance(given, int) and given > 0 else 1
    each = kv_bytes(preset, facts.kv_bytes)
    room = max(0, int(facts.memory * _CONTEXT_PART)) // each
    context = min(facts.trained * slots, room, *([wanted] if isinstance(wanted, int) else []))
    slots = max(1, min(slots, context // min(LEAST_PER_SLOT, facts.trained)))
    context = max(_STEP, min(context, facts.trained * slots) // (_STEP * slots) * (_STEP * slots))
    llama = {**preset.llama, **({} if given is None else {"parallel": slots})}
    if preset.llama.get("cache-ram") != 0:
        left = int(max(0, facts.memory - context * each) * _PROMPT_PART) // MIB
        llama["cache-ram"] = left if preset.options.get("ctx_size") == "auto" else min(_DEFAULT_PROMPTS, left)
    return preset.replace(options={**preset.options, "ctx_size": context}, llama=llama)
