"""Vocabularies of which the ``tokenizer.*`` metadata is compared, byte for byte, with the official script's.

The families compare whole files; here are the kinds of vocabulary themselves, whichever families use them. Goldens
are in tests/data/convert/official/vocab.json, written by tests/data/convert/make_official_vocab.py.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_runner.convert.gguf_metadata import KeyValues
from llama_runner.convert.model_config import Config
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.vocab import Vocabulary, bpe, unigram
from llama_runner.convert.vocab.tokenizer import Tokenizer
from tests.convert.checkpoints import DATA, copy_tokenizer, edit_json, encoded, write_json, write_safetensors
from tests.convert.gguf_file import raw_values

Write = Callable[[KeyValues, Config, ModelDirectory], Vocabulary]
T5 = {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 130, "d_model": 32, "d_ff": 64,
    "d_kv": 8, "num_heads": 4, "num_layers": 1, "n_positions": 64, "relative_attention_num_buckets": 32,
    "layer_norm_epsilon": 1e-6, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
XLM_ROBERTA = {
    "architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "vocab_size": 122, "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 66,
    "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
ROBERTA = {**XLM_ROBERTA, "architectures": ["RobertaModel"], "model_type": "roberta", "vocab_size": 330}
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 40,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
}  # fmt: skip
SPECIALS = {
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>",
    "sep_token": "</s>",
}  # fmt: skip


def byte_level(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Byte-level BPE as most families write it."""
    return bpe.write(values, config, source, Tokenizer.load(source, config))


def roberta(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """RoBERTa's, with the number of token types."""
    written = byte_level(values, config, source)
    values.uint32("tokenizer.ggml.token_type_count", config.find("type_vocab_size"))
    return written


@dataclass(frozen=True)
class Case:
    """One vocabulary: the files of ``kind``, edited; ``pre`` is what the official script is told."""

    kind: str
    config: Mapping[str, Any]
    write: Write
    edit: Callable[[Path], object] = lambda _: None
    changes: Mapping[str, Any] = field(default_factory=dict)
    pre: str = "-"

    def build(self, directory: Path) -> Path:
        """A checkpoint that has a vocabulary, and next to no weights."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "config.json", {**self.config, **self.changes})
        write_safetensors(directory / "model.safetensors", encoded({"shared.weight": (4, 4)}, "F32"))
        copy_tokenizer(directory, self.kind)
        self.edit(directory)
        return directory


def settings(**changes: object) -> Callable[[Path], object]:
    return lambda directory: edit_json(directory / "tokenizer_config.json", **changes)


def renamed(old: str, new: str) -> Callable[[Path], object]:
    return lambda directory: (directory / old).rename(directory / new)


CASES: dict[str, Case] = {
    "t5": Case("t5", T5, unigram.write_t5),
    "t5-tokenizer-model": Case("t5", T5, unigram.write_t5, renamed("spiece.model", "tokenizer.model")),
    "t5-added": Case(
        "t5", T5, unigram.write_t5,
        lambda directory: write_json(directory / "added_tokens.json", {"<new>": 121, "<far>": 500, "<mark2>": 3}),
    ),
    "t5-settings": Case("t5", T5, unigram.write_t5, settings(eos_token="</s>", add_eos_token=True)),
    "xlm-roberta": Case("xlm-roberta", XLM_ROBERTA, unigram.write_xlm_roberta),
    "xlm-roberta-settings": Case(
        "xlm-roberta", XLM_ROBERTA, unigram.write_xlm_roberta, settings(**SPECIALS), {"type_vocab_size": 2}
    ),
    "xlm-roberta-fast": Case(
        "xlm-roberta-fast", XLM_ROBERTA, unigram.write_xlm_roberta,
        settings(tokenizer_class="XLMRobertaTokenizer", **SPECIALS, mask_token="<mask>"),
    ),
    "xlm-roberta-fast-few": Case("xlm-roberta-fast", XLM_ROBERTA, unigram.write_xlm_roberta),
    "xlm-roberta-fast-padded": Case(
        "xlm-roberta-fast", XLM_ROBERTA, unigram.write_xlm_roberta,
        settings(tokenizer_class="PreTrainedTokenizerFast", clean_up_tokenization_spaces=True, add_prefix_space=True),
        {"vocab_size": 150},
    ),
    "roberta": Case("roberta", ROBERTA, roberta, settings(tokenizer_class="RobertaTokenizer"), pre="roberta-bpe"),
    "roberta-few": Case("roberta", ROBERTA, roberta, pre="roberta-bpe"),
    "gpt2-neox-class": Case(
        "gpt2", LLAMA, byte_level, settings(tokenizer_class="GPTNeoXTokenizer"), {"vocab_size": 340}, "gpt-2"
    ),
    "gpt2-codegen-class": Case(
        "gpt2", LLAMA, byte_level, settings(tokenizer_class="CodeGenTokenizerFast"), {"vocab_size": 331}, "gpt-2"
    ),
    "llama3-cohere-class": Case(
        "llama3", LLAMA, byte_level, settings(tokenizer_class="CohereTokenizer", chat_template="{{ x }}"),
        {"vocab_size": 350}, "llama-bpe",
    ),
    "llama3-gemma-class": Case(
        "llama3", LLAMA, byte_level, settings(tokenizer_class="GemmaTokenizer"), {"vocab_size": 350}, "llama-bpe"
    ),
    "gpt2-bloom-class": Case(
        "gpt2", LLAMA, byte_level, settings(tokenizer_class="BloomTokenizer", pad_token="<pad>"), {"vocab_size": 340},
        "gpt-2",
    ),
}  # fmt: skip


def written(case: Case, directory: Path) -> KeyValues:
    """What llama_runner writes of a vocabulary."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    values = KeyValues("x")
    case.write(values, Config(config["architectures"][0], config), ModelDirectory(directory))
    return values


def digest(values: bytes, count: int) -> str:
    """The SHA-256 of the ``tokenizer.*`` values in their order, keys included."""
    parts = (key.encode() + value for key, value in raw_values(values, count) if key.startswith("tokenizer."))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def run_official(python: Path, tree: Path, folder: Path, extra: str = "") -> dict[str, str]:
    """The digests of what the official script writes, or the error, which holds a colon."""
    jobs = []
    for title, case in CASES.items():
        directory = case.build(folder / title / "model")
        destination = str(folder / title / "out.gguf")
        jobs.append({
            "directory": str(directory), "destination": destination, "outtype": "f32", "pre": case.pre, "vocab": True,
        })  # fmt: skip
    where = f"{extra}:{tree / 'gguf-py'}" if extra else str(tree / "gguf-py")
    environment = {"PYTHONPATH": where, "HF_HUB_OFFLINE": "1", "PATH": "", "HOME": str(folder)}
    driver = [python, DATA / "official_driver.py", tree]
    done = subprocess.run(driver, input=json.dumps(jobs), capture_output=True, text=True, check=False, env=environment)
    (folder / "official.log").write_text(done.stderr, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    errors = json.loads(done.stdout)
    found = {}
    for job in jobs:
        made = Path(str(job["destination"]))
        title = made.parent.name
        if ":" in errors[job["destination"]]:
            found[title] = errors[job["destination"]]
            continue
        data = made.read_bytes()
        found[title] = digest(data[24:], int.from_bytes(data[16:24], "little"))
    return found
