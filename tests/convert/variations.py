"""The options that change the layout of a decoder with rotary attention, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.convert.families.llama import LLAMA3_ROPE
from tests.convert.tiny import HEAD, built, sizes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.convert.cases import Case

FACTORS = {"short_factor": [1.0 + n / 16 for n in range(8)], "long_factor": [1.5 + n for n in range(8)]}
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 24.0},
    "llama3": {**LLAMA3_ROPE},
    "longrope": {"rope_type": "longrope", **FACTORS, "original_max_position_embeddings": 64},
}
HEADS = 4
NO_HEAD = frozenset({"untied"})  # the embedding is always the output matrix
NO_SIZE = frozenset({"head-size"})  # llama.cpp does not look at a size of heads
NO_FREQUENCIES = frozenset({"llama3"})  # the official script makes a tensor and refuses it then
NO_CONTEXT = frozenset({"linear", "dynamic"})  # the original context has to be named


@dataclass(frozen=True)
class Base:
    """What the variations of one architecture start from; ``table`` is without the head and without biases.

    ``head`` is that of the untied model, ``biases`` what ``bias_options`` in config.json stand for; of those
    ``without`` there is nothing to compare: the official script fails, or makes a file that llama.cpp cannot load.
    """

    config: Mapping[str, Any]
    table: str
    head: str = HEAD
    tokenizer: str = "gpt2"
    biases: str = ""
    bias_options: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    fused: bool = False
    finish: Callable[[Path], object] = lambda _: None

    def case(
        self, dtype: str = "BF16", *, table: str = "", shards: int = 0, outtypes: tuple[str, ...] = ("auto",),
        **changes: Any,
    ) -> Case:  # fmt: skip
        """The case with other values in config.json, None for none, and more tensors."""
        config = {**self.config, **changes}
        sizes = {**sizes_of(config), **self.sizes}
        if self.fused:
            sizes["fused"] = sizes["queries"] + 2 * sizes["keys"]
        tables = self.table + table + ("" if config.get("tie_word_embeddings") else self.head)
        case = built(
            config, tables, dtype=dtype, shards=shards, tokenizer=self.tokenizer, sizes=sizes, outtypes=outtypes
        )
        return replace(case, build=lambda directory: (case.build(directory), self.finish(directory)))


def variations(base: Base) -> dict[str, Case]:
    """The cases that every decoder with rotary attention has, but those that it is ``without``."""
    cases = {
        "tied": base.case("F16", tie_word_embeddings=True),
        "untied": base.case("F32", tie_word_embeddings=False, shards=2),
        "every-key": base.case("F16", num_key_value_heads=HEADS),
        "one-key": base.case("F32", num_key_value_heads=1, shards=3),
        "grouped": base.case(num_key_value_heads=2),
        "head-size": base.case(head_dim=24),
        "parameters": base.case(rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 50000.0}),
        **{kind: base.case(rope_scaling=rope) for kind, rope in ROPES.items()},
    }
    if base.bias_options:
        options: dict[str, Any] = dict.fromkeys(base.bias_options, True)
        cases["biases"] = base.case(table=base.biases, **options)
    return {title: case for title, case in cases.items() if title not in base.without}


def like(base: Base, architecture: str, model_type: str) -> Base:
    """The same checkpoint under another name."""
    return replace(base, config={**base.config, "architectures": [architecture], "model_type": model_type})
