"""The table of quantizations, and what is chosen from it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from llama_runner.recommend.choose_quantization import Candidate, Machine, Row, choose, row_of
from llama_runner.recommend.estimate_memory import MemoryModel, kv_bytes_of
from llama_runner.recommend.machine_speed import Rates, Reads, reads_of
from llama_runner.recommend.weightless_gguf import VOCABULARY, write_skeleton
from llama_runner.serving.llama_server.memory_by_fit_params import Need, Room
from llama_runner.sources.gguf_header import GgufHeader, TensorEntry, read_header

if TYPE_CHECKING:
    from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30


def model(each: int, *, weights: int = GIB, on_gpu: bool = False) -> MemoryModel:
    """Return a model whose cache takes ``each`` bytes for a token."""

    def need(context: int) -> Need:
        parts = (weights, each * context, 50 * MIB)
        return Need((("GPU", *parts),), (0, 0, MIB)) if on_gpu else Need((), parts)

    return MemoryModel(need(4096), need(131072), (4096, 131072), 20 * MIB)


def machine(host: int, each: int = 1 << 17, trained: int = 32768, gpu: int | None = None) -> Machine:
    models = {"f16": model(each, on_gpu=gpu is not None), "q8_0": model(each // 2, on_gpu=gpu is not None)}
    room = Room(host, () if gpu is None else (("GPU", gpu),))
    return Machine(models, room, trained, Rates({"copy": 2e10}, 1e-5, "copy"), Reads(10**9, 1.0, 16))


def row(name: str, size: int, fits: str = "fits", rate: float | None = 20.0, context: int = 4096) -> Row:
    return Row(name, None, size, fits, context, "f16", size, rate)  # type: ignore[arg-type]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    weights=some.integers(MIB, 1 << 40),
    host=some.integers(0, 1 << 40),
    each=some.integers(2, 1 << 20),
    wanted=some.integers(1, 1 << 20),
    gpu=some.none() | some.integers(0, 1 << 38),
)
def test_the_context_of_a_row_fits_and_a_larger_one_does_not(
    weights: int, host: int, each: int, wanted: int, gpu: int | None
) -> None:
    here = machine(host, each, gpu=gpu)
    found = row_of(Candidate("q4_k_m", weights), wanted, here)
    room = host + (gpu or 0)
    assert found.fits == ("fits" if found.context >= wanted else "less context" if found.context else "does not fit")
    if found.context:
        assert found.memory <= room
    if gpu is None and found.context < max(wanted, 32768):
        assert here.memory[found.cache_type].total(found.context + 512, weights) > host


def test_the_cache_is_quantized_only_where_the_context_fits_no_other_way() -> None:
    # 1 GiB of weights and 70 MiB besides; 4096 tokens are 512 MiB at 16 bits, 256 MiB at 8
    assert row_of(Candidate("q4_k_m", GIB), 4096, machine(2 * GIB)).cache_type == "f16"
    tight = row_of(Candidate("q4_k_m", GIB), 4096, machine(GIB + 400 * MIB))
    assert (tight.cache_type, tight.fits) == ("q8_0", "fits")
    assert row_of(Candidate("q4_k_m", GIB), 4096, machine(GIB + 150 * MIB)).fits == "less context"
    assert row_of(Candidate("q4_k_m", GIB), 4096, machine(GIB)).fits == "does not fit"


def test_layers_that_a_gpu_has_no_room_for_count_on_the_host_and_make_the_speed_unknown() -> None:
    whole = row_of(Candidate("q4_k_m", GIB), 4096, machine(GIB, gpu=8 * GIB))
    assert whole.fits == "fits"
    assert whole.tokens_per_second is not None
    spilled = row_of(Candidate("q4_k_m", 4 * GIB), 4096, machine(8 * GIB, gpu=2 * GIB))
    assert spilled.fits == "fits"
    assert spilled.tokens_per_second is None


def test_the_largest_up_to_8_bits_that_is_fast_enough_is_recommended() -> None:
    rows = [row("f16", 160), row("Q8_0", 85), row("Q6_K", 66), row("Q4_K_M", 49)]
    assert choose(rows)[0] == rows[1]
    slow = [row("F16", 160, rate=3), row("Q8_0", 85, rate=6), row("Q6_K", 66, rate=8), row("UD-Q4_K_M", 49, rate=9)]
    assert choose(slow)[0] == slow[3]
    less = [row("Q8_0", 85, rate=6), row("Q4_K_M", 49, rate=9), row("Q2_K", 30, rate=15)]
    assert choose(less)[0] == less[1], "quality is not given up for speed"
    unknown = [row("Q8_0", 85, rate=None), row("Q4_K_M", 49, rate=None), row("Q2_K", 30, rate=None)]
    assert choose(unknown)[0] == unknown[1]


def test_what_does_not_fit_is_recommended_only_with_less_context_where_nothing_else_is_there() -> None:
    rows = [row("Q8_0", 85, "does not fit", context=0), row("Q4_K_M", 49, "less context", context=512)]
    assert choose(rows)[0] == rows[1]
    assert choose(rows[:1]) == (None, "nothing fits")
    assert choose([row("F16", 160, "fits")])[0] is not None
    rows = [row("F16", 160), row("Q8_0", 85, "does not fit", context=0)]
    assert choose(rows)[0] == rows[0]


def test_of_experts_only_those_in_use_are_read_and_the_table_of_tokens_is_not() -> None:
    def entry(name: str, elements: int) -> TensorEntry:
        return TensorEntry(name, (elements,), "q8_0", elements, elements)

    metadata = {"general.architecture": "moe", "moe.expert_count": 8, "moe.expert_used_count": 2, "moe.block_count": 1}
    entries = [entry("token_embd.weight", 100), entry("output.weight", 100), entry("blk.0.ffn_up_exps.weight", 800)]
    reads = reads_of([GgufHeader(3, 3, metadata, 0, {}, tuple(entries))])
    assert reads == Reads(1000, 0.3, 1)
    tied = reads_of([GgufHeader(3, 1, metadata, 0, {}, (entries[0],))])
    assert tied.part == 1.0


def test_the_attention_is_computed_for_each_head_that_shares_a_key() -> None:
    metadata = {"general.architecture": "x", "x.attention.head_count": 32, "x.attention.head_count_kv": 8}
    assert reads_of([GgufHeader(3, 0, metadata, 0)]).queries == 4.0
    latent = {**metadata, "x.attention.kv_lora_rank": 512, "x.attention.head_count_kv": 1}
    assert reads_of([GgufHeader(3, 0, latent, 0)]).queries == 32.0
    for odd in ([32, 16], 0, -1, 64, "8", None):
        header = GgufHeader(3, 0, {**metadata, "x.attention.head_count_kv": odd}, 0)
        assert reads_of([header]).queries == 1.0
    reads, rates = Reads(10**6, 1.0, 0, 4.0), Rates({"f16": 1e12}, 0.0, "llama-bench", 1e9)
    seconds = 1 / rates.tokens_per_second(reads, 1, 10**7) - 1 / rates.tokens_per_second(reads, 1, 0)
    assert seconds == pytest.approx(10**7 / 2 * 4 / 1e9, rel=0.01)
    assert rates.replace(attention=None).tokens_per_second(reads, 1, 10**7) > 10**4


def test_the_rate_between_two_measured_types_is_between_theirs() -> None:
    rates = Rates({"q4_k": 10.0, "q8_0": 30.0}, 0.0, "llama-bench")
    assert rates.rate(2.0) == 10.0
    assert rates.rate(6.5) == pytest.approx(20.0)
    assert rates.rate(16.0) == 30.0


def test_the_cache_of_a_token_follows_from_the_metadata() -> None:
    llama = {"block_count": 32, "embedding_length": 4096, "attention.head_count": 32, "attention.head_count_kv": 8}
    metadata: dict[str, object] = {f"llama.{key}": value for key, value in llama.items()}
    assert kv_bytes_of({"general.architecture": "llama", **metadata}) == 128 << 10
    latent = {"x.block_count": 60, "x.attention.kv_lora_rank": 512, "x.rope.dimension_count": 64}
    assert kv_bytes_of({"general.architecture": "x", **latent}) == 2 * 60 * 576
    assert kv_bytes_of({}) == 0


def test_a_width_equal_to_the_vocabulary_is_not_taken_for_it(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_token_list([f"{number}" for number in range(512)])
    writer.add_tensor("token_embd.weight", np.zeros((512, 512), np.float16))
    writer.add_tensor("output_norm.weight", np.zeros(512, np.float32))
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((512, 512), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = tmp_path / "model.gguf"
    write_skeleton(tmp_path / "skeleton.gguf", model, [read_header(model)])
    skeleton = read_header(tmp_path / "skeleton.gguf")
    assert {entry.name: entry.shape for entry in skeleton.entries} == {
        "token_embd.weight": (512, VOCABULARY),
        "output_norm.weight": (512,),
        "blk.0.ffn_up.weight": (512, 512),
    }
    assert skeleton.metadata["tokenizer.ggml.model"] == "no_vocab"
    assert skeleton.metadata["llama.vocab_size"] == VOCABULARY
    assert "tokenizer.ggml.tokens" not in skeleton.arrays
