"""The speed that is estimated for a model: rates of the machine, corrected by what llama-bench measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest

from llama_runner.recommend import model_speed
from llama_runner.recommend.machine_speed import (
    COPY_RANGE,
    MEASURED_RANGE,
    MODEL_RANGE,
    Rates,
    copy_rate,
    is_free,
    machine_rates,
    reads_of,
)
from llama_runner.recommend.model_headers import Headers
from llama_runner.recommend.model_speed import Measured, corrected, types_of
from llama_runner.recommend.weightless_gguf import fill_with_numbers, write_without_vocabulary
from llama_runner.sources.gguf_without_weights import Shape, text_value
from llama_runner.sources.resolve_source import open_gguf
from tests.random_models import random_model

if TYPE_CHECKING:
    from pathlib import Path


def test_rates_are_kept_and_a_damaged_file_is_measured_again(tmp_path: Path) -> None:
    rates = machine_rates(None, tmp_path / "kept", on_gpu=False, free=True)
    assert rates is not None
    assert rates.by_type["copy"] > 1e8
    assert machine_rates(None, tmp_path / "kept", on_gpu=False, free=True) == rates
    (kept,) = (tmp_path / "kept").iterdir()
    for damaged in (
        "",
        "[]",
        '{"by_type": {}}',
        json.dumps({"by_type": {"copy": -1}, "per_layer": 0, "measured_by": "", "attention": None}),
        json.dumps({"by_type": {"copy": 1}, "per_layer": 0, "measured_by": "", "attention": 0}),
    ):
        kept.write_text(damaged)
        assert machine_rates(None, tmp_path / "kept", on_gpu=False, free=True) is not None
        assert json.loads(kept.read_text())["by_type"]["copy"] > 1e8
    assert machine_rates(None, tmp_path / "kept", on_gpu=True, free=True) is None


@pytest.mark.skipif(os.name == "nt", reason="the program is a script")
def test_rates_are_those_that_llama_bench_measures_with_each_type_and_with_a_long_context(
    tmp_path: Path,
) -> None:
    program = tmp_path / "llama-bench"
    program.write_text(  # 2 GB/s for the largest type, 1 GB/s for the others, and 1 µs for each token of the context
        f"#!{sys.executable}\nimport json, os, sys\nwords = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "size = os.path.getsize(words['-m'])\n"
        "seconds = size / (2e9 if size > 4e8 else 1e9) + int(words['-d']) * 1e-6\n"
        "print('loading')\nprint(json.dumps({'samples_ts': [0.5 / seconds, 1 / seconds]}))\n"
    )
    program.chmod(0o755)
    rates = machine_rates(program, tmp_path / "kept", on_gpu=False, free=True)
    assert rates is not None
    assert rates.by_type == pytest.approx({"q4_k": 1e9, "q6_k": 1e9, "q8_0": 1e9, "f16": 2e9}, rel=0.01)
    assert rates.per_layer == pytest.approx(0, abs=1e-6)
    assert rates.attention == pytest.approx(2 * 256 * 8 * 1e6, rel=0.01)
    assert (rates.measured_by, rates.range) == ("llama-bench", MEASURED_RANGE)
    program.write_text(program.read_text() + "#")
    assert machine_rates(program, tmp_path / "kept", on_gpu=False, free=True) == rates
    assert len(list((tmp_path / "kept").iterdir())) == 2, "other programs are measured for themselves"
    program.write_text("#!/bin/sh\nexit 1\n")
    failing = machine_rates(program, tmp_path / "kept", on_gpu=False, free=True)
    assert failing is not None
    assert (failing.measured_by, failing.range) == ("copy", COPY_RANGE)
    assert machine_rates(program, tmp_path / "other", on_gpu=True, free=True) is None


def test_rates_of_a_busy_machine_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    rates = machine_rates(None, tmp_path / "kept", on_gpu=False, free=is_free())
    assert rates is not None
    assert rates.measured_by == "copy, busy"
    assert not (tmp_path / "kept").exists()


def test_the_estimated_speed_follows_from_the_bytes_that_are_read(binaries: Path, tmp_path: Path) -> None:
    rates = machine_rates(None, tmp_path / "kept", on_gpu=False, free=True)
    assert rates is not None
    assert copy_rate() > 0
    speeds = []
    for kind in ("f16", "q4_k_m"):
        header = open_gguf(random_model(binaries, kind)).header
        weights = sum(entry.bytes for entry in header.entries)
        speeds.append(rates.tokens_per_second(reads_of([header]), weights, 0))
    assert 0 < speeds[0] < speeds[1], "smaller weights are faster; benchmarks/recommend.py compares with a server"


@pytest.mark.skipif(os.name == "nt", reason="the program is a script")
def test_the_speed_of_a_model_is_what_llama_bench_measures_with_its_tensors(
    binaries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, asked = tmp_path / "llama-bench", tmp_path / "asked"
    program.write_text(  # 1 GB/s
        f"#!{sys.executable}\nimport json, os, sys\nwords = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        f"size = os.path.getsize(words['-m'])\nopen({str(asked)!r}, 'a').write(f'{{size}} {{words[\"-d\"]}}\\n')\n"
        "print(json.dumps({'samples_ts': [1e9 / size]}))\n"
    )
    program.chmod(0o755)
    file = random_model(binaries, "f16")
    header = open_gguf(file).header
    found = Headers(file, (header,))
    model = Measured(tmp_path, found, {}, found.size, 1 << 14)
    here = partial(corrected, program=program, kept=tmp_path / "kept", free=True)

    def speed_at(rates: Rates) -> float:
        return rates.tokens_per_second(reads_of([header]), found.size, 32 << 14)

    rates = Rates({"f16": 1e11}, 1e-5, "llama-bench")
    whole = here(rates, model, 64)
    assert speed_at(whole) == pytest.approx(1e9 / found.size, rel=0.02), "1 GB/s, not the 100 GB/s of other models"
    assert (whole.measured_by, whole.range) == ("llama-bench, tensors of this model", MODEL_RANGE)
    assert here(rates, model, 64) == whole
    assert len(asked.read_text().splitlines()) == 1, "it is kept"
    monkeypatch.setattr(model_speed, "LARGEST", found.size // 2)
    part = here(rates, model, 64)
    assert speed_at(part) == pytest.approx(1e9 / found.size, rel=0.1), "the speed of the whole model"
    size, depth = map(int, asked.read_text().splitlines()[-1].split())
    assert (size <= found.size // 2, depth) == (True, 32), "some of the layers were measured"
    assert here(rates, model, 1 << 17).measured_by == whole.measured_by
    assert asked.read_text().splitlines()[-1].split()[1] == "512", "a longer context is computed from the shorter one"
    assert here(rates, model, 128, free=False) == rates, "a busy machine measures nothing"
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix == ".gguf"] == []
    program.write_text("#!/bin/sh\nexit 1\n")
    assert here(rates, model, 64) == rates


def test_the_types_of_a_quantization_are_those_of_a_dry_run(binaries: Path) -> None:
    program = next((binaries / "bins").glob("*/*/llama-quantize"))
    for name in ("q4_k_m", "q8_0"):
        argv: list[str | Path] = [program, "--dry-run", random_model(binaries, "f16"), name]
        said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
        entries = open_gguf(random_model(binaries, name)).header.entries
        types = types_of(said.stdout + said.stderr)
        assert types == {entry.name: entry.type for entry in entries if len(entry.shape) > 1}


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_k", "q6_k", "q5_k", "q3_k", "q2_k"])
def test_the_numbers_of_a_model_that_is_measured_are_small_and_finite(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    shapes = [Shape("a.weight", (256, 64), kind), Shape("norm.weight", (256,), "f32")]
    write_without_vocabulary(file, "llama", {"general.architecture": text_value("llama")}, shapes)
    fill_with_numbers(file)
    matrix, norm = gguf.GGUFReader(file).tensors
    numbers = gguf.quants.dequantize(matrix.data, matrix.tensor_type)
    assert np.isfinite(numbers).all()
    assert 0 < np.abs(numbers).max() < 100
    assert np.count_nonzero(numbers) > numbers.size / 2
    assert (norm.data == 1).all()


def test_the_scales_of_a_model_that_is_measured_are_normal_numbers_of_one_size(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    write_without_vocabulary(
        file, "llama", {"general.architecture": text_value("llama")}, [Shape("a.weight", (256, 64), "q8_0")]
    )
    fill_with_numbers(file)
    (matrix,) = gguf.GGUFReader(file).tensors
    scales = np.abs(matrix.data.reshape(-1, 34)[:, :2].copy().view(np.float16))
    assert scales.min() > np.finfo(np.float16).tiny
    assert scales.max() < 3 * scales.min()
