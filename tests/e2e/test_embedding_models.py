"""Encoders and rerankers are recognised, served as what they are, and refused where text is asked of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.core.artifact_record import STATE_FILE
from tests.conftest import Command, says
from tests.convert.checkpoints import bert, write_json
from tests.convert.families.encoders import XLM_RANKER, roberta
from tests.e2e.serving import request

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="the line begins with curl")


def plain(directory: Path) -> Path:
    return bert(directory, max_position_embeddings=1024)


def pooled(directory: Path) -> Path:
    """Return a model with the files of sentence-transformers."""
    bert(directory)
    write_json(directory / "modules.json", [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])
    (directory / "1_Pooling").mkdir()
    write_json(directory / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    return directory


def ranker(directory: Path) -> Path:
    extra = {"classifier.weight": (1, 32), "classifier.bias": (1,)}
    of: dict[str, Any] = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    return bert(directory, prefix="bert.", extra=extra, **of)


def xlm_ranker(directory: Path) -> Path:
    directory.mkdir()
    return roberta(directory, "xlm-roberta", labels=1, **XLM_RANKER)


KINDS = [
    (
        plain,
        "--embeddings --pooling mean --batch-size 1024 --ubatch-size 1024",
        "embeddings, pooling mean; the model's",
    ),
    (pooled, "--embeddings", "embeddings, pooling cls\n"),
    (ranker, "--rerank", "rerank: scores of documents\n"),
    (xlm_ranker, "--rerank", "rerank: scores of documents\n"),
]


@needs_curl
@pytest.mark.parametrize(("make", "words", "line"), KINDS, ids=lambda each: getattr(each, "__name__", None))
def test_13_02_a_model_is_started_as_what_it_is_made_for(
    root: Path, tmp_path: Path, llama_runner: Command, make: object, words: str, line: str
) -> None:
    assert callable(make)
    model = make(tmp_path / "model")
    planned = llama_runner("plan", model, "-q", "f16", "--root", root)
    assert planned.out.splitlines()[-1].endswith(f" {words}"), planned
    done = llama_runner("run", model, "-q", "f16", "--root", root, "--detach")
    try:
        assert done.code == 0, done
        assert f"purpose   {line}" in done.out
        example = next(each for each in done.out.splitlines() if each.startswith("try"))
        answer = subprocess.run(["sh", "-c", example[10:]], check=True, capture_output=True, text=True)
        found = json.loads(answer.stdout)
        assert len(found["results"]) == 2 if "rerank" in line else len(found["data"][0]["embedding"]) == 32
        planned = llama_runner("plan", model, "-q", "f16", "--root", root)
        assert planned.out.splitlines()[-1].endswith(f" {words}"), "also once it is made"
    finally:
        llama_runner("stop", "--all", "--root", root)


def test_13_02_an_input_may_be_as_long_as_the_context(root: Path, tmp_path: Path) -> None:
    options = ServerOptions(port=0)
    with Runner(root).serve(plain(tmp_path / "m"), quantization="f16", server=options) as server:
        assert len(server.embed(["a " * 900])[0]) == 32


@pytest.mark.parametrize("make", [plain, pooled, ranker])
def test_13_02_what_needs_text_is_refused_before_any_work(
    root: Path, tmp_path: Path, llama_runner: Command, make: object
) -> None:
    assert callable(make)
    model, text = make(tmp_path / "model"), tmp_path / "text.txt"
    text.write_text("a text\n" * 1000)
    kind = "a reranker" if make is ranker else "an embedding model"
    asked = llama_runner("infer", model, "--prompt", "hi", "--root", root)
    says(asked, 2, f"is {kind}, which writes no text")
    assert f"ask {'/v1/rerank' if make is ranker else '/v1/embeddings'}" in asked.err
    for option in ("--quality", "--calibration"):
        measured = llama_runner("quantize", model, "-q", "q8_0", option, text, "--root", root)
        says(measured, 2, f"is {kind}, which writes no text, and {option} needs one that does")
        assert f"hint: leave {option} out" in measured.err
    assert not (root / "models").exists()


def test_13_02_a_gguf_file_is_recognised_too(root: Path, tmp_path: Path, llama_runner: Command) -> None:
    file = tmp_path / "m.gguf"
    llama_runner("convert", pooled(tmp_path / "model"), "-o", file, "--root", root)
    assert llama_runner("plan", file, "--root", root).out.splitlines()[-1].endswith(" --embeddings")
    says(llama_runner("infer", file, "--prompt", "hi", "--root", root), 2, "is an embedding model")
    says(llama_runner("quantize", file, "-q", "q8_0", "--quality", file, "--root", root), 2, "is an embedding model")


def test_13_02_what_the_user_says_counts_more(root: Path, tmp_path: Path, llama_runner: Command) -> None:
    model = plain(tmp_path / "model")

    def ends(*words: str, env: dict[str, str] | None = None) -> str:
        line = llama_runner("plan", model, "--root", root, "-c", "64", *words, env=env).out.splitlines()[-1]
        return line.partition("--ctx-size 64")[2].strip()

    assert ends("--pooling", "cls") == ends("--", "--pooling", "cls") == "--embeddings --pooling cls"
    assert ends("--", "--embeddings", "--pooling", "last") == "--embeddings --pooling last"
    assert ends("--", "--embeddings") == "--pooling mean --embeddings"
    assert ends("--purpose", "rerank") == "--rerank"
    assert ends("--llama-env", env={"LLAMA_ARG_POOLING": "cls"}) == "--embeddings"
    says(llama_runner("plan", model, "--purpose", "text", "--root", root), 2, "is an embedding model")
    demo = llama_runner("plan", "--demo", "--purpose", "embeddings", "-c", "64", "--root", root)
    assert demo.out.splitlines()[-1].endswith("--ctx-size 64 --embeddings --pooling last")


def test_13_02_the_pooling_of_a_model_with_an_older_record_is_that_of_its_file(root: Path, tmp_path: Path) -> None:
    runner, model = Runner(root), pooled(tmp_path / "model")
    made = runner.prepare(model, quantization="f16")
    state = made.model.parent / STATE_FILE
    records = json.loads(state.read_text())
    for record in records["artifacts"].values():
        assert record["facts"].pop("pooling") == "cls"
    write_json(state, records)
    again = runner.prepare(model, quantization="f16")
    assert (again.ran, again.facts["pooling"]) == ((), "cls")
    with runner.launch(again, server=ServerOptions(port=0)) as server:
        assert "--pooling" not in server.spec.argv()
        assert request(server.url, "/v1/embeddings", {"input": "a"})[0] == 200
