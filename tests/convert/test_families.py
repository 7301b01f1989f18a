"""The families' tables agree with each other and with gguf."""

from __future__ import annotations

import gguf
import pytest

from llama_runner.convert.families import ARCHITECTURES, TEXT_PARTS, family_of
from llama_runner.convert.families.family_definition import Family
from llama_runner.convert.families.llama import rope_frequencies
from llama_runner.convert.model_config import Config

FAMILIES = sorted(set(ARCHITECTURES.values()))


def _family(module: str) -> Family:
    return family_of(next(name for name, value in ARCHITECTURES.items() if value == module))


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_has_its_family(architecture: str) -> None:
    assert isinstance(family_of(architecture), Family)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_what_reads_in_a_whole_is_of_types_that_the_family_knows(architecture: str) -> None:
    family = family_of(architecture)
    assert (family.composite is not None) == (architecture in TEXT_PARTS)
    if family.composite:
        assert set(TEXT_PARTS[architecture]["model_type"]) == set(family.defaults)


@pytest.mark.parametrize("module", FAMILIES)
def test_every_rule_names_a_tensor_that_llama_cpp_knows(module: str) -> None:
    family = _family(module)
    key = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.name)
    known = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[key]}
    newer = {target for targets in family.targets.values() for target in targets} & set(gguf.TENSOR_NAMES.values())
    assert {rule.name for rule in family.rules} <= known | newer


@pytest.mark.parametrize("module", FAMILIES)
def test_every_shape_is_made_of_known_sizes(module: str) -> None:
    family = _family(module)
    for model_type, defaults in family.defaults.items():
        if not defaults:
            continue  # transformers does not know the type
        sizes = family.dimensions(Config("x", family.derive(dict(defaults), model_type)))
        rules = [rule for rule in family.rules if rule.where(Config("x", defaults), 0) and not rule.rows]
        used = {name for rule in rules for name in (*rule.shape, *([rule.heads] if rule.heads else []))}
        assert used | {"blocks"} <= set(sizes)
        assert all(type(size) is int and size > 0 for size in sizes.values())


def test_llama_3_scaling_leaves_fast_rotations_and_stretches_slow_ones() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}  # fmt: skip
    (made,) = rope_frequencies(Config("x", {"head_dim": 128, "rope_theta": 500000.0, "rope_scaling": scaling}))
    assert made.name == "rope_freqs.weight"
    assert len(made.values) == 64
    assert made.values[0] == 1.0
    assert made.values[-1] == 8.0
    assert list(made.values) == sorted(made.values)
    assert sum(1.0 < value < 8.0 for value in made.values) == 6
