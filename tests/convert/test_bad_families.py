"""Bad input, for every architecture that is converted: nothing is dropped or taken for something else in silence."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import pytest

from llama_runner.convert import convert, errors, inspect
from llama_runner.convert.families import ARCHITECTURES
from llama_runner.core.errors import SourceError
from tests.convert.checkpoints import shard, write_json, write_safetensors
from tests.convert.gguf_file import read
from tests.convert.official import FAMILIES, FIRST, cases_of

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
PLAIN = {"F32", "F16", "BF16", "I64"}
EVERY = pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
BLOCK = re.compile(r"(?:layers?|h|block)\.1\.")
EMBEDDING = re.compile(
    r"(?:embed_tokens|word_embeddings|wte|embed_in|tok_embeddings|shared|backbone\.embeddings)\.weight$"
)


def tensors_of(model: Path) -> Tensors:
    found: Tensors = {}
    for path in sorted(model.glob("*.safetensors")):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8:start]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                found[name] = (entry["dtype"], tuple(entry["shape"]), data[start + begin : start + end])
    return found


def put(model: Path, tensors: Tensors) -> None:
    write_safetensors(model / "model.safetensors", tensors)


def matrices(tensors: Tensors) -> list[str]:
    """The first, a middle and the last matrix of the second block."""
    names = sorted(name for name, (_, shape, _) in tensors.items() if BLOCK.search(name) and len(shape) > 1)
    return [names[0], names[len(names) // 2], names[-1]]


def embedding(tensors: Tensors) -> str:
    return next(name for name in tensors if EMBEDDING.search(name))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """One checkpoint of each architecture, with plain weights in one file."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    for group in (FIRST, *FAMILIES):
        for title, case in cases_of(group).items() if group != "layouts" else ():
            model = folder / group / title
            case.build(model)
            architecture = json.loads((model / "config.json").read_text(encoding="utf-8"))["architectures"][0]
            tensors = tensors_of(model) if architecture not in found else {}
            if not tensors or {dtype for dtype, _, _ in tensors.values()} - PLAIN:
                shutil.rmtree(model)
                continue
            for path in (*model.glob("*.safetensors"), *model.glob("*.index.json")):
                path.unlink()
            put(model, tensors)
            found[architecture] = model
    return found


@pytest.fixture
def model(models: Mapping[str, Path], architecture: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models[architecture], tmp_path / "model"))


@EVERY
def test_a_tensor_that_no_rule_knows_is_named(model: Path) -> None:
    tensors = tensors_of(model)
    known = matrices(tensors)[0]
    unknown = known.replace(".1.", ".1.lora_A.", 1)
    put(model, {**tensors, unknown: tensors[known]})
    with pytest.raises(SourceError, match=f"family does not know: {re.escape(unknown)}"):
        inspect(model)


@EVERY
def test_a_missing_tensor_is_named(model: Path) -> None:
    tensors = tensors_of(model)
    for missing in (*matrices(tensors), embedding(tensors)):
        put(model, {name: tensor for name, tensor in tensors.items() if name != missing})
        with pytest.raises(SourceError, match=r"blk\.\d+\." if BLOCK.search(missing) else r"token_embd\.weight"):
            inspect(model)


@EVERY
def test_what_only_some_blocks_have_is_missing_in_the_others(model: Path) -> None:
    tensors = tensors_of(model)
    biases = [name for name in sorted(tensors) if BLOCK.search(name) and name.endswith(("bias", "beta"))]
    for missing in [name for name in biases if not name.endswith(("attn.bias", "masked_bias"))][:1]:
        put(model, {name: tensor for name, tensor in tensors.items() if name != missing})
        with pytest.raises(SourceError, match=r"blk\.\d+\.\w+\.bias"):
            inspect(model)


@EVERY
def test_a_wrong_shape_is_reported_with_the_right_one(model: Path) -> None:
    tensors = tensors_of(model)
    for name in (*matrices(tensors), embedding(tensors)):
        dtype, shape, data = tensors[name]
        wrong = (shape[0] + 1, *shape[1:])
        put(model, {**tensors, name: (dtype, wrong, bytes(prod(wrong) * len(data) // prod(shape)))})
        with pytest.raises(SourceError, match=r", config\.json implies") as caught:
            inspect(model)
        told = re.fullmatch(r"tensor (\S+) has shape \[(.*)\], config\.json implies \[(.*)\]", str(caught.value))
        assert told is not None
        assert told[1] == name
        # gpt-oss's experts are stored on their side; what is told is how they are wanted
        assert [sorted(map(int, sizes.split(","))) for sizes in told.group(2, 3)] == [sorted(wrong), sorted(shape)]


@EVERY
def test_more_tokens_than_the_embedding_has_rows(model: Path, tmp_path: Path) -> None:
    """A SentencePiece model with more is cut, as by the official script; any other vocabulary is an error."""
    tensors = tensors_of(model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    reading = config.get("text_config", config)  # of a model that sees as well
    new = 96
    for key in reading.keys() & {"vocab_size", "vocab_size_per_layer_input"}:
        old, reading[key] = reading[key], new
        for name, (dtype, shape, data) in tensors.items():
            if old in shape:
                smaller = tuple(new if size == old else size for size in shape)
                tensors[name] = (dtype, smaller, data[: len(data) * new // old])
    put(model, tensors)
    write_json(model / "config.json", config)
    if (model / "tokenizer.model").is_file():
        convert(model, tmp_path / "out.gguf", name="model")
        assert len(read(tmp_path / "out.gguf").values["tokenizer.ggml.tokens"]) == new
        return
    with pytest.raises(errors.TooManyTokens) as caught:
        inspect(model)
    assert caught.value.room == new


@EVERY
def test_a_tensor_in_two_shards_is_reported_with_both(model: Path) -> None:
    shard(model, 2)
    first, second = (model / f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    tensors = tensors_of(model)
    table = json.loads((model / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    twice = next(name for name in tensors if table[name] == second.name)
    mine = {name: tensor for name, tensor in tensors.items() if table[name] == first.name or name == twice}
    write_safetensors(first, mine)
    with pytest.raises(SourceError, match=f"tensor {re.escape(twice)} is in two shards") as caught:
        inspect(model)
    assert all(shard.name in str(caught.value) for shard in (first, second))


@EVERY
def test_a_shard_that_was_cut_short_is_broken(model: Path) -> None:
    shard(model, 2)
    second = model / "model-00002-of-00002.safetensors"
    second.write_bytes(second.read_bytes()[:-10])
    with pytest.raises(errors.BrokenShard, match="bytes beyond the end") as caught:
        inspect(model)
    assert caught.value.path == second


@EVERY
def test_numbers_that_float16_cannot_hold_are_counted(model: Path, tmp_path: Path) -> None:
    tensors = tensors_of(model)
    name = embedding(tensors)
    _, shape, _ = tensors[name]
    values = np.ones(shape, dtype="<f4")
    values.reshape(-1)[:5] = (np.nan, np.inf, -1e6, 65504.0, 65519.0)
    put(model, {**tensors, name: ("F32", shape, values.tobytes())})
    made = convert(model, tmp_path / "out.gguf", name="model", outtype="f16")
    assert dict(made.not_finite) == {"token_embd.weight": 3}


@pytest.mark.parametrize("architecture", ["InternLM2ForCausalLM"])
def test_an_added_token_beyond_the_vocabulary(model: Path) -> None:
    listed = {"420": {"content": "<|far|>", "special": True}}
    write_json(model / "tokenizer_config.json", {"added_tokens_decoder": listed})
    with pytest.raises(errors.TooManyTokens, match="it has 421 tokens, the embedding has room for 420"):
        inspect(model)


@pytest.mark.parametrize("architecture", [name for name in sorted(ARCHITECTURES) if name.endswith("Classification")])
def test_a_classifier_without_what_classifies(model: Path) -> None:
    tensors = tensors_of(model)
    put(model, {name: tensor for name, tensor in tensors.items() if "classifier" not in name})
    with pytest.raises(SourceError, match=r"cls\.output\.weight"):
        inspect(model)
