"""The built-in presets: what they set, and their numbers for a machine and a model."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from llama_runner.config.presets import LEAST_PER_SLOT, PRESETS, MachineFacts, for_machine, kv_bytes
from llama_runner.request.lifecycle_options import OPTIONS

GIB = 1 << 30


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_known_options_and_places_no_layers(name: str) -> None:
    settings = PRESETS[name]
    assert set(settings.options) <= {option.name for option in OPTIONS} - {"gpu_layers"}
    assert not set(settings.llama) & {"gpu-layers", "tensor-split", "override-tensor", "fit", "ctx-size"}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=some.sampled_from(sorted(PRESETS)),
    memory=some.integers(-GIB, 1 << 42),
    kv=some.integers(1, 1 << 22),
    trained=some.integers(1, 1 << 21),
)
def test_the_numbers_for_a_machine_fit_into_its_memory(name: str, memory: int, kv: int, trained: int) -> None:
    preset = PRESETS[name]
    chosen = for_machine(preset, MachineFacts(memory, kv, trained))
    context, before = chosen.options.get("ctx_size"), preset.options.get("ctx_size")
    if before is None:
        assert chosen == preset
        return
    assert isinstance(context, int)
    slots, slots_before = chosen.llama.get("parallel", 1), preset.llama.get("parallel", 1)
    assert 1 <= slots <= slots_before
    assert context <= max(256, trained * slots)
    if isinstance(before, int):
        assert context <= before
    prompts = chosen.llama["cache-ram"] << 20
    if context > 256:
        assert context * kv_bytes(preset, kv) + prompts <= memory
    if slots > 1:
        assert context >= slots * min(LEAST_PER_SLOT, trained) - 256 * slots
    assert {**chosen.llama, "parallel": 0, "cache-ram": 0} == {**preset.llama, "parallel": 0, "cache-ram": 0}


def test_an_agent_gets_the_context_that_fits_and_the_rest_of_the_memory_is_shared_with_prompts() -> None:
    chosen = for_machine(PRESETS["agent"], MachineFacts(8 * GIB, 128 << 10, 131072))
    assert chosen.options["ctx_size"] == 98560, "four fifths of 8 GiB at 68 KiB a token"
    assert chosen.llama["cache-ram"] == 823
    large = for_machine(PRESETS["agent"], MachineFacts(200 * GIB, 128 << 10, 131072))
    assert large.options["ctx_size"] == 131072
    assert large.llama["cache-ram"] > 8192


def test_fewer_users_are_served_where_memory_is_short() -> None:
    facts = MachineFacts(2 * GIB, 128 << 10, 131072)
    assert for_machine(PRESETS["many-users"], facts).llama["parallel"] == 3
    assert for_machine(PRESETS["many-users"], facts.replace(memory=16 * GIB)).llama["parallel"] == 8
    assert for_machine(PRESETS["many-users"], facts.replace(memory=0)).llama["parallel"] == 1
