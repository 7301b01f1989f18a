"""Trains the small tokenizers of the conversion tests, once; what it writes is committed.

Needs `tokenizers` and `sentencepiece` (the environment that scripts/reference_env.py makes has both):

    python tests/data/convert/make_tokenizers.py

The files may come out differently with other versions; then official.json has to be made again as well.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).resolve().parent / "tokenizers"
sys.path.insert(0, str(HERE.parents[3]))

from llama_runner.convert.vocab import sentencepiece_model_file  # noqa: E402

TEXT = """The store keeps what was made. A model is converted once, quantized once and served many times.
Nothing is done twice: the same inputs give the same bytes, the same digests and the same keys on every machine.
When something has changed, the plan says what will run and why. Größe, naïve, café, 東京, Москва, emoji 🙂.
Numbers: 1 22 333 4444 3.14 2026-11-20. It's, we've, they'll, I'm; don't stop, won't stop, can't stop!
def convert(directory, destination): return {"sha256": digest, "bytes": 42}  # the end
"""
LINES = [line for line in TEXT.splitlines() for _ in range(20)]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def spm() -> None:
    """tokenizer.model with control, user-defined and byte pieces."""
    folder = HERE / "spm"
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        character_coverage=0.99,
        control_symbols=["<tool>"],
        user_defined_symbols=["<mark>", "  "],
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()


def unigram() -> None:
    """T5's kind of model and XLM-RoBERTa's, with a small table of normalization, and the latter as tokenizer.json."""
    rules = HERE / "rules.tsv"
    rules.write_text("FB01\t66 69\nE9\t65 301\n2014\t2D\n", encoding="utf-8")
    for folder, name, unknown in (("t5", "spiece", 2), ("xlm-roberta", "sentencepiece.bpe", 0)):
        (HERE / folder).mkdir(parents=True, exist_ok=True)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES),
            model_prefix=str(HERE / folder / name),
            model_type="unigram",
            vocab_size=150,
            hard_vocab_limit=False,
            normalization_rule_tsv=str(rules),
            pad_id=0 if unknown else -1,
            eos_id=1 if unknown else 2,
            unk_id=unknown,
            bos_id=-1 if unknown else 1,
            user_defined_symbols=["<mark>"] if unknown else [],
            num_threads=1,
            minloglevel=2,
        )
        (HERE / folder / f"{name}.vocab").unlink()
    rules.unlink()
    fast()


def fast() -> None:
    """XLM-RoBERTa's vocabulary as transformers turns it into a tokenizer.json."""
    path = str(HERE / "xlm-roberta" / "sentencepiece.bpe.model")
    model = sentencepiece.SentencePieceProcessor(model_file=path)
    pieces = [(model.IdToPiece(number), model.GetScore(number)) for number in range(3, model.vocab_size())]
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces, ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3))
    tokenizer.normalizer = normalizers.Precompiled(sentencepiece_model_file.read(Path(path)).charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    folder = HERE / "xlm-roberta-fast"
    folder.mkdir(parents=True, exist_ok=True)
    document = json.loads(tokenizer.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def roberta() -> None:
    """Byte-level BPE with RoBERTa's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    save(tokenizer, "roberta")


def byte_fallback() -> None:
    """The same vocabulary as a tokenizer.json, with merges that lead to each piece."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(HERE / "spm" / "tokenizer.model"))
    vocab = {model.IdToPiece(number): number for number in range(model.vocab_size())}
    plain = {text for text, number in vocab.items() if not (model.IsControl(number) or model.IsByte(number))}
    merges = [
        (text[:cut], text[cut:])
        for text in sorted(plain, key=vocab.__getitem__)
        for cut in range(1, len(text))
        if text[:cut] in plain and text[cut:] in plain and text != "<unk>"
    ]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_special_tokens(["<|turn|>"])
    tokenizer.add_tokens([AddedToken("▁added", normalized=False)])
    save(tokenizer, "byte-fallback")


def byte_level() -> None:
    """Byte-level BPE twice: as Llama 3 has it, and as GPT-2 has it."""
    for name, split in (("llama3", LLAMA3), ("gpt2", None)):
        tokenizer = Tokenizer(models.BPE(ignore_merges=split is not None))
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
        if split is None:
            tokenizer.pre_tokenizer = last
        else:
            from tokenizers import Regex

            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), last])
        tokenizer.decoder = decoders.ByteLevel()
        specials = ["<|begin|>", "<|end|>", "<|turn|>"] if split else ["<|endoftext|>"]
        trainer = trainers.BpeTrainer(
            vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        tokenizer.train_from_iterator(LINES, trainer)
        tokenizer.add_special_tokens(specials)
        if split:
            tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("Ġplain", normalized=False)])
            tokenizer.post_processor = processors.Sequence(
                [
                    processors.ByteLevel(trim_offsets=True),
                    processors.TemplateProcessing(
                        single="<|begin|> $A",
                        pair="<|begin|> $A <|begin|>:1 $B:1",
                        special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))],
                    ),
                ]
            )
        save(tokenizer, name)


def wordpiece() -> None:
    """WordPiece as BERT has it, also as vocab.txt."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    save(tokenizer, "wordpiece")
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    text = "".join(f"{token}\n" for token, _ in itertools.islice(vocab, None))
    (HERE / "wordpiece" / "vocab.txt").write_text(text, encoding="utf-8")


def save(tokenizer: Any, name: str) -> None:
    """Write a tokenizer.json with its keys in the order of the vocabulary."""
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    document = json.loads(tokenizer.to_str())
    document["model"]["vocab"] = dict(sorted(document["model"]["vocab"].items(), key=lambda item: item[1]))
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    spm()
    unigram()
    roberta()
    byte_fallback()
    byte_level()
    wordpiece()
