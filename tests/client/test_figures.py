"""What is told of a load, and which options a search settles for: without any server."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.benchmark import llama_bench
from llama_runner.benchmark.load_generator import Sample
from llama_runner.benchmark.statistics import compare, figures, percentile
from llama_runner.benchmark.tune import MARGIN, Settings, axes, search
from llama_runner.core.errors import ToolError, UsageError


def sample(whole: float, tokens: int = 10, error: str | None = None) -> Sample:
    return Sample(whole / 2, whole, tokens, 5, error)


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 100))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values: list[float], share: int) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share / 100 * len(values)
    assert sum(value < found for value in values) < share / 100 * len(values)


def test_errors_are_counted_by_name_and_are_in_no_other_figure() -> None:
    samples = [sample(1.0), sample(2.0), sample(50.0, error="TimedOut"), sample(60.0, error="TimedOut")]
    told = figures(samples, 2, 4.0)
    assert told["requests"] == 4
    assert told["errors"] == {"TimedOut": 2}
    assert (told["tokens"], told["prompt_tokens"], told["tokens_per_second"]) == (20, 10, 5.0)
    assert told["latency_s"] == {"p50": 1.0, "p95": 2.0, "p99": 2.0}
    assert told["first_token_s"] == {"p50": 0.5, "p95": 1.0, "p99": 1.0}


def test_where_everything_failed_there_are_no_latencies() -> None:
    told = figures([sample(1.0, error="Unreachable")], 1, 1.0)
    assert told["latency_s"] == {"p50": None, "p95": None, "p99": None}
    assert compare([told], [figures([sample(1.0)], 1, 1.0)])[0]["latency_s"] is None


def test_only_levels_that_both_have_are_compared() -> None:
    before = [figures([sample(1.0)], 1, 1.0), figures([sample(1.0)], 2, 1.0)]
    now = [figures([sample(2.0)], 2, 2.0), figures([sample(2.0)], 4, 2.0)]
    assert compare(now, before) == [
        {"concurrency": 2, "tokens_per_second": 0.5, "first_token_s": 2.0, "latency_s": 2.0}
    ]


AXES = axes(4, 8, ["q8_0"])
CHANGES = [change for axis in AXES for change in axis]


def test_everything_is_tried_and_the_best_of_each_is_combined() -> None:
    gains = {"--threads=8": 1.5, "--flash-attn=on": 1.2, "--ubatch-size=128": 0.5}

    def measure(settings: Settings) -> float:
        score = 100.0
        for option, value in settings.items():
            score *= gains.get(f"{option}={value}", 1.0)
        return score

    found = search(AXES, measure, budget=1e9)
    assert found.settings == {"--threads": "8", "--flash-attn": "on"}
    assert found.default == 100
    assert found.score == pytest.approx(180)
    assert found.finished
    tried = [settings for settings, _ in found.tried]
    assert all(any(change.items() <= settings.items() for settings in tried) for change in CHANGES)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1000)), min_size=40, max_size=40))
def test_it_never_ends_below_the_default_whatever_is_measured(scores: list[float | None]) -> None:
    measured = iter(scores)
    found = search(AXES, lambda _settings: next(measured), budget=1e9)
    if found.settings:
        assert found.score > found.default * MARGIN
    else:
        assert found.score == found.default


def test_a_tie_and_what_is_only_noise_are_the_defaults() -> None:
    assert search(AXES, lambda _settings: 100.0, budget=1e9).settings == {}
    lucky = itertools.chain([100.0, 150.0], itertools.repeat(100.0))
    assert search(AXES, lambda _settings: next(lucky), budget=1e9).settings == {}


def test_what_the_server_cannot_do_is_not_chosen() -> None:
    found = search(AXES, lambda settings: None if settings else 50.0, budget=1e9)
    assert (found.settings, found.score) == ({}, 50.0)


def test_nothing_new_is_begun_when_the_budget_is_spent() -> None:
    time = itertools.count()
    found = search(AXES, lambda _settings: 1.0, budget=5, clock=lambda: float(next(time)))
    assert len(found.tried) <= 5
    assert not found.finished


def test_raw_figures_are_compared_where_the_settings_that_both_name_are_the_same() -> None:
    def figure(speed: float, **settings: object) -> dict[str, object]:
        return {"test": "pp32", "tokens_per_second": speed, "settings": settings}

    before = [figure(10.0, n_prompt=32, n_threads=1), figure(20.0, n_prompt=32, n_threads=2)]
    now = [figure(30.0, n_prompt=32, n_threads=2, load_mode="auto"), figure(1.0, n_prompt=32, n_threads=4)]
    assert llama_bench.compare(now, before) == [{"test": "pp32", "tokens_per_second": 1.5}]
    assert llama_bench.compare(now[:1], [figure(0.0, n_prompt=32, n_threads=2)]) == []


def test_what_is_given_to_llama_bench_displaces_what_is_ours() -> None:
    assert llama_bench.bench_arguments([], 2, None) == ["-t", "2"]
    assert llama_bench.bench_arguments(["-p", "8", "--threads", "1,2"], 2, "all") == [
        "-ngl",
        "999",
        "-p",
        "8",
        "--threads",
        "1,2",
    ]
    with pytest.raises(UsageError, match="-hf cannot be given"):
        llama_bench.bench_arguments(["-hf", "org/model"], 2, None)


def test_binaries_without_llama_bench_are_told(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"there is no .*/llama-bench"):
        llama_bench.measure(tmp_path / "llama-bench", tmp_path / "m.gguf", [], root=tmp_path, on_test=print)
    assert list(tmp_path.iterdir()) == []


def test_a_llama_bench_that_measures_nothing_is_told(tmp_path: Path) -> None:
    program = tmp_path / "llama-bench"
    program.write_text('#!/bin/sh\necho \'{}\'; echo 7; echo \'{"n_prompt": 1, "n_gen": 0, "avg_ts": null}\'\n')
    program.chmod(0o755)
    with pytest.raises(ToolError, match="no figures\nfull log: logs/llama-bench-"):
        llama_bench.measure(program, tmp_path / "m.gguf", [], root=tmp_path, on_test=print)
