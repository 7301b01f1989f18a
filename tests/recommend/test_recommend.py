"""Recommendations for real models, with the real programs, a hub on loopback and real servers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.core.errors import LlamaRunnerError, SourceError, UsageError
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.recommend.estimate_memory import memory_models
from llama_runner.recommend.model_headers import headers_of
from llama_runner.serving.llama_server.memory_check import resident_bytes
from llama_runner.sources.quantization_types import BITS_PER_WEIGHT
from llama_runner.sources.resolve_source import open_gguf
from tests.e2e.serving import request
from tests.fakehub.models import write_gguf
from tests.random_models import random_model
from tests.sources.gguf_files import split

if TYPE_CHECKING:
    from llama_runner.recommend.choose_quantization import Recommendation
    from tests.conftest import Command
    from tests.fakehub.hub import Hub

MIB = 1 << 20


def programs_in(root: Path) -> Path:
    return next((root / "bins").glob("*/*/llama-server")).parent


def made_demo(root: Path, quantization: str) -> Path:
    return Runner(root).prepare(demo=True, quantization=quantization).model


def estimated(model: Path, root: Path, tmp_path: Path, context: int, cache: str) -> int:
    source = open_gguf(model)
    headers = headers_of(source, tmp_path, lambda *_: b"", None)
    assert headers is not None
    trained = source.header.facts()["context_length"]
    models, _, by = memory_models(headers, programs_in(root), tmp_path, trained)
    assert by == "llama-fit-params"
    return models[cache].total(context, headers.size)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "context", "cache"),
    [
        ("demo q4_k_m", 1024, "f16"),
        ("demo bf16", 512, "f16"),
        ("q4_k_m", 4096, "f16"),
        ("q4_k_m", 2048, "q8_0"),
        ("q8_0", 8192, "f16"),
        ("f16", 2048, "f16"),
    ],
)
def test_the_memory_is_within_5_percent_of_what_the_server_takes(
    name: str, context: int, cache: str, binaries: Path, tmp_path: Path
) -> None:
    model = made_demo(binaries, name[5:]) if name.startswith("demo ") else random_model(binaries, name)
    expected = estimated(model, binaries, tmp_path, context, cache)
    words: tuple[str, ...] = ("-lm", "none", "-cram", "0")  # not mapped: the page cache is not the server's
    words += ("-ctk", cache, "-ctv", cache, "-fa", "on") if cache != "f16" else ()
    options = ServerOptions(port=0, ctx_size=context, threads=1, extra=words)
    with Runner(binaries).serve(gguf_path=model, server=options) as server:
        prompt = [number % 500 + 100 for number in range(min(context - 32, 2000))]
        status, _ = request(server.url, "/completion", {"prompt": prompt, "n_predict": 4})
        assert status in (200, 500), "random weights may write what is no text"
        taken = resident_bytes(server.pid)
    assert expected == pytest.approx(taken, rel=0.05), f"{expected / MIB:.1f} MiB, taken {taken / MIB:.1f} MiB"


def test_the_sizes_of_quantizations_are_those_of_the_files_that_would_be_made(binaries: Path) -> None:
    found = {row.quantization: row for row in Runner(binaries).recommend(demo=True).rows}
    for quantization in ("bf16", "q8_0", "q4_k_m"):
        header = open_gguf(made_demo(binaries, quantization)).header
        weights = sum(entry.bytes for entry in header.entries)
        assert found[quantization].bytes == pytest.approx(weights, rel=0.01)
    assert found["q8_0"].file is None
    only = Runner(binaries).recommend(demo=True, quantization="q6_k").rows
    assert [row.quantization for row in only] == ["q6_k"]


def test_a_file_of_a_quantization_is_the_only_row(binaries: Path) -> None:
    model = random_model(binaries, "q4_k_m")
    found = Runner(binaries).recommend(model, context=8192, memory=1 << 30)
    (row,) = found.rows
    assert (row.quantization, row.file, row.fits) == ("q4_k_m", model.name, "fits")
    assert found.recommended is not None
    assert found.recommended.context == 8192
    assert found.kv_bytes == pytest.approx(12 * 2 * 4 * 64 * 2, rel=0.01), "12 layers, 4 heads of 64, 2 bytes"
    assert 0 < found.free < 1 << 30
    small = Runner(binaries).recommend(model, context=32768, memory=256 << 20)
    assert small.rows[0].fits == "less context"
    assert Runner(binaries).recommend(model, memory=MIB).recommended is None


@pytest.fixture
def ggufs(binaries: Path) -> dict[str, Path]:
    return {name: random_model(binaries, name) for name in ("q8_0", "q4_k_m")}


@pytest.mark.usefixtures("user_of_the_hub")
def test_of_a_repository_of_gguf_files_only_one_header_is_fetched(hub: Hub, root: Path, ggufs: dict[str, Path]) -> None:
    hub.repo("acme/model", {f"model-{name.upper()}.gguf": path for name, path in ggufs.items()})
    found = Runner(root).recommend("acme/model", context=4096)
    assert [row.quantization for row in found.rows] == ["Q8_0", "Q4_K_M"]
    assert [row.bytes for row in found.rows] == [path.stat().st_size for path in ggufs.values()]
    assert found.estimated_by == "llama-fit-params"
    assert found.recommended is not None
    assert found.recommended.file in ("model-Q8_0.gguf", "model-Q4_K_M.gguf")
    assert sum(each.bytes_sent for each in hub.requests) < 2 * MIB
    (same,) = Runner(root).recommend("acme/model:Q4_K_M", context=4096).rows
    assert same == next(row for row in found.rows if row.quantization == "Q4_K_M").replace(
        tokens_per_second=same.tokens_per_second
    )


@pytest.mark.usefixtures("user_of_the_hub")
def test_a_split_model_on_the_hub_is_one_row(hub: Hub, root: Path, binaries: Path, tmp_path: Path) -> None:
    shards = split(made_demo(binaries, "bf16"), tmp_path / "model-BF16.gguf")
    assert len(shards) > 1
    hub.repo("acme/split", {path.name: path for path in shards})
    (row,) = Runner(root).recommend("acme/split").rows
    assert row.bytes == sum(path.stat().st_size for path in shards)


@pytest.mark.usefixtures("user_of_the_hub")
def test_of_safetensors_on_the_hub_no_weights_are_fetched(hub: Hub, root: Path, binaries: Path) -> None:
    hub.repo("acme/demo", {path.name: path for path in MODEL_DIRECTORY.iterdir() if path.is_file()})
    found = Runner(root).recommend("acme/demo")
    local = Runner(binaries).recommend(demo=True)
    assert [(row.quantization, row.bytes) for row in found.rows] == [
        (row.quantization, row.bytes) for row in local.rows
    ]
    weights = (MODEL_DIRECTORY / "model.safetensors").stat().st_size
    parts = [each for each in hub.requests if each.path.endswith("model.safetensors") and each.which == "cdn"]
    assert sum(each.bytes_sent for each in parts) < weights / 10


@pytest.mark.usefixtures("user_of_the_hub")
def test_a_file_on_the_hub_that_is_no_model_is_an_error(hub: Hub, root: Path, tmp_path: Path) -> None:
    hub.repo("acme/page", {"model-Q8_0.gguf": b"<html>" * 10_000})
    with pytest.raises(SourceError, match="not a usable GGUF file"):
        Runner(root).recommend("acme/page")
    hub.repo("acme/odd", {"model-Q8_0.gguf": write_gguf(tmp_path / "odd.gguf", 100_000)})
    odd = Runner(root).recommend("acme/odd")
    assert odd.estimated_by == "metadata", "llama-fit-params refuses it"


def test_without_programs_the_memory_is_estimated_from_the_metadata(tmp_path: Path, binaries: Path) -> None:
    model = random_model(binaries, "q4_k_m")
    runner = Runner(tmp_path / "empty")
    found = runner.recommend(model, context=4096)
    assert found.estimated_by == "metadata"
    with_programs = Runner(binaries).recommend(model, context=4096)
    assert found.recommended is not None
    assert with_programs.recommended is not None
    assert found.recommended.memory == pytest.approx(with_programs.recommended.memory, rel=0.15)
    assert not (tmp_path / "empty" / "bins").exists(), "nothing is compiled"


def test_a_declared_model_and_wrong_numbers(tmp_path: Path, binaries: Path) -> None:
    path = tmp_path / "llama-runner.toml"
    path.write_text("[models.mine]\ndemo = true\nquantization = 'q8_0'\n")
    found = Runner(binaries, config=path).recommend("mine")
    assert [row.quantization for row in found.rows] == ["q8_0"]
    with pytest.raises(UsageError, match="context"):
        Runner(binaries).recommend(demo=True, context=0)
    with pytest.raises(UsageError, match="memory"):
        Runner(binaries).recommend(demo=True, memory=-1)


def json_of(llama_runner: Command, *words: object) -> Recommendation:
    done = llama_runner(*words)
    assert done.code == 0, done
    return done.json  # type: ignore[no-any-return]


def test_the_command_prints_a_table_the_recommendation_and_the_command_to_run(
    llama_runner: Command, binaries: Path
) -> None:
    model = random_model(binaries, "f16")
    done = llama_runner("recommend", model, "--root", binaries, "--memory", "400M", "--context", "2048")
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert lines[0].startswith("random-100m-f16: 400.0 MiB of memory available, trained for a context of 32768")
    assert lines[1].split() == ["quantization", "size", "memory", "context", "cache", "tokens/s"]
    marked = [line for line in lines if line.startswith("*")]
    assert len(marked) == 1
    assert any(line.startswith("recommended: ") for line in lines[-3:])
    least, most = map(float, marked[0].split()[-2].split("-"))
    assert 0 < least < most, "the speed is a range"
    assert lines[-1].startswith(f"run it: llama-runner run {model} -q ")
    as_json = llama_runner("recommend", model, "--root", binaries, "--memory", "400M", "--json").json
    assert [row["quantization"] for row in as_json["rows"]] == ["f16", *BITS_PER_WEIGHT]
    nothing = llama_runner("recommend", model, "--root", binaries, "--memory", "1M")
    assert "nothing fits with a context of 4096" in nothing.out


@pytest.mark.usefixtures("user_of_the_hub")
@pytest.mark.parametrize(
    ("kind", "ends"), [("range_ignored", True), ("503", True), ("drop", True), ("404", False), ("html", False)]
)
def test_a_hub_with_faults_is_asked_again_or_is_an_error(
    kind: str, *, ends: bool, hub: Hub, root: Path, ggufs: dict[str, Path]
) -> None:
    hub.repo("acme/model", {"model-Q8_0.gguf": ggufs["q8_0"]})
    facts = {"after": 5000} if kind == "drop" else {}
    hub.fault(kind, path="*.gguf", times=1 if ends else None, **facts)
    if ends:
        (row,) = Runner(root).recommend("acme/model").rows
        assert row.fits == "fits"
        assert sum(each.bytes_sent for each in hub.requests) < 40 * MIB
    else:
        with pytest.raises(LlamaRunnerError) as caught:
            Runner(root).recommend("acme/model")
        assert caught.value.code in (3, 4)
        assert caught.value.hint
