"""The tokenizer and chat template of the original model, as transformers reads them from its small files.

The converter is not asked: what it reads wrongly is to be found. ``original_driver`` runs the tokenizer and Jinja.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import UnreadableFile
from llama_runner.convert.model_directory import CONFIG, ModelDirectory
from llama_runner.convert.vocab import sentencepiece_model_file
from llama_runner.convert.vocab.tokenizer_classes import FRAMING, NORMALIZER_SETTINGS, SETTING_NORMALIZER
from llama_runner.core.immutable_values import Value, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
SMALL_FILES = (
    CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
"""The files of a repository that describe tokenizer and template."""
_PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_WORDS = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
_FOUND_FIRST = (2, 3, 4)
"""Types of pieces that transformers finds before SentencePiece splits: unknown, control, user-defined."""


class Original(Value, eq=False):
    """What the files of a model say of its tokenizer and template."""

    directory: Path
    document: Mapping[str, Any] | None
    """tokenizer.json, or one with the same meaning; None where SentencePiece reads the vocabulary."""
    pieces: Path | None
    """The SentencePiece model that is read where there is no tokenizer.json."""
    texts: Mapping[int, str]
    """All tokens by number."""
    added: Mapping[int, Mapping[str, Any]]
    """The tokens that are found in a text before it is split."""
    specials: Mapping[str, str]
    """The texts of special tokens by name: ``bos_token``."""
    framing: tuple[bool, bool] | None
    """Whether the tokenizer's class puts BOS and EOS around a text; None where tokenizer.json says it."""
    template: str | None
    """The chat template that is used by default."""
    ends: tuple[int, ...]
    """The tokens at which generation ends, by generation_config.json and config.json."""
    tokenizer_class: str = ""
    normal_forms: tuple[str, ...] = field(default=())
    """The Unicode normal forms that a text is brought to."""

    @property
    def numbers(self) -> dict[str, int]:
        """All tokens by text."""
        return {text: number for number, text in self.texts.items()}

    @property
    def model_type(self) -> str:
        """The kind of the vocabulary: ``BPE``, ``WordPiece``, ``Unigram``, ``SentencePiece``."""
        return "SentencePiece" if self.document is None else str(self.document["model"].get("type", "BPE"))

    @property
    def merges(self) -> list[str] | None:
        """The merges of a byte-level vocabulary, each as GGUF has it; None of another vocabulary."""
        if self.document is None or self.model_type != "BPE" or self.document["model"].get("byte_fallback"):
            return None
        return [
            merge if isinstance(merge, str) else " ".join(str(part).replace(" ", "Ġ") for part in merge)
            for merge in self.document["model"].get("merges") or ()
        ]


def read_original(directory: Path) -> Original | None:
    """Return the tokenizer of a model directory; None without a vocabulary that is read here."""
    with well_formed(directory):
        return _read(ModelDirectory(directory))


def _read(source: ModelDirectory) -> Original | None:
    directory = source.directory
    settings = source.optional_object("tokenizer_config.json")
    named = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    document, pieces = _document(source, settings, named), None
    if document is None:
        pieces = next((directory / name for name in _PIECES if source.has(name)), None)
        if pieces is None:
            return None
        known = sentencepiece_model_file.read(pieces).pieces
        texts = {number: text for number, (text, _, _) in enumerate(known)}
        found = {number: {"content": text} for number, (text, _, kind) in enumerate(known) if kind in _FOUND_FIRST}
        added = {**found, **_added(source, settings, {})}
    else:
        texts = _vocabulary(document["model"])
        added = _added(source, settings, document)
        document = {**document, "added_tokens": [{"id": number, **entry} for number, entry in sorted(added.items())]}
    texts = {**texts, **{number: str(entry["content"]) for number, entry in added.items()}}
    return Original(
        directory=directory,
        document=document,
        pieces=pieces,
        texts=texts,
        added=added,
        specials=_specials(source, settings, named, word_list="vocab.txt" if not source.has("tokenizer.json") else ""),
        framing=_framing(settings, named, source),
        template=_template(source, settings),
        ends=_ends(source),
        tokenizer_class=named,
        normal_forms=() if document is None else tuple(_normal_forms(document.get("normalizer"))),
    )


@contextmanager
def well_formed(directory: Path) -> Iterator[None]:
    """Turn errors that values of unexpected types cause into ``UnreadableFile``: they are in files of others."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UnreadableFile(directory, f"its tokenizer has values of unexpected types ({error!r})") from error


def _document(source: ModelDirectory, settings: Mapping[str, Any], named: str) -> dict[str, Any] | None:
    """Return tokenizer.json with what the class changes in it, or one made of the older files of BERT and GPT-2."""
    document = source.optional_object("tokenizer.json")
    if not document and source.has("vocab.txt"):
        words = source.text("vocab.txt").split("\n")
        document = _word_pieces({word: number for number, word in enumerate(words[:-1] if not words[-1] else words)})
    elif not document and source.has("vocab.json") and source.has("merges.txt"):
        lines = source.text("merges.txt").split("\n")
        merges = [line for line in lines if line and not line.startswith("#version")]
        byte_level = {"type": "ByteLevel", "add_prefix_space": bool(settings.get("add_prefix_space"))}
        document = {
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {**byte_level, "trim_offsets": True, "use_regex": True},
            "post_processor": None,
            "decoder": {**byte_level, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "vocab": source.optional_object("vocab.json"), "merges": merges},
        }
    if not isinstance(document.get("model"), dict) or "vocab" not in document["model"]:
        return None
    normalizer = document.get("normalizer")
    if named in SETTING_NORMALIZER and isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        said = {key: settings.get(setting, default) for key, (setting, default) in NORMALIZER_SETTINGS.items()}
        document = {**document, "normalizer": {**normalizer, **said}}
    return document


def _word_pieces(vocabulary: dict[str, int]) -> dict[str, Any]:
    framed = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
    around = {name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")
              if name in vocabulary}  # fmt: skip
    processor = {"type": "TemplateProcessing", "single": framed, "pair": framed, "special_tokens": around}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    named = [name for name in _WORDS.values() if name in vocabulary]
    return {
        "added_tokens": [{"id": vocabulary[name], "content": name, **flags} for name in named],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": processor if len(around) == len(("[CLS]", "[SEP]")) else None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    }  # fmt: skip


def _vocabulary(model: Mapping[str, Any]) -> dict[int, str]:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        return {number: text for text, number in vocabulary.items() if isinstance(number, int)}
    pairs = enumerate(vocabulary if isinstance(vocabulary, list) else ())
    return {number: str(pair[0]) for number, pair in pairs if isinstance(pair, list) and pair}


def _added(
    source: ModelDirectory, settings: Mapping[str, Any], document: Mapping[str, Any]
) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for entry in document.get("added_tokens") or ():
        if isinstance(entry, dict) and isinstance(entry.get("id"), int) and isinstance(entry.get("content"), str):
            found[entry["id"]] = {name: value for name, value in entry.items() if name != "id"}
    told = settings.get("added_tokens_decoder")
    for number, entry in told.items() if isinstance(told, dict) else ():
        if str(number).isdigit() and isinstance(entry, dict) and isinstance(entry.get("content"), str):
            found.setdefault(int(number), {**flags, **entry})
    for text, number in source.optional_object("added_tokens.json").items():
        if isinstance(number, int):
            found.setdefault(number, {"content": text, **flags, "special": False})
    return dict(sorted(found.items()))


def _specials(source: ModelDirectory, settings: Mapping[str, Any], named: str, *, word_list: str) -> dict[str, str]:
    told = {**source.optional_object("special_tokens_map.json"), **settings}
    found = dict(_WORDS) if (word_list and source.has(word_list)) or named in SETTING_NORMALIZER else {}
    for kind in KINDS:
        value = told.get(f"{kind}_token")
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            found[f"{kind}_token"] = value
    return found


def _framing(settings: Mapping[str, Any], named: str, source: ModelDirectory) -> tuple[bool, bool] | None:
    if named in FRAMING or not source.has("tokenizer.json"):
        first = settings.get("add_bos_token", FRAMING.get(named, not source.has("vocab.json")))
        return (bool(first), bool(settings.get("add_eos_token", False))) if not source.has("vocab.txt") else None
    return None


def _template(source: ModelDirectory, settings: Mapping[str, Any]) -> str | None:
    found: object = settings.get("chat_template")
    if source.has("chat_template.jinja"):
        found = source.text("chat_template.jinja") if found is None else found
    elif source.has("chat_template.json") and found is None:
        found = source.optional_object("chat_template.json").get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _ends(source: ModelDirectory) -> tuple[int, ...]:
    config = source.config if source.has(CONFIG) else {}
    text = config.get("text_config")
    for told in (source.optional_object("generation_config.json"), config, text if isinstance(text, dict) else {}):
        found = told.get("eos_token_id")
        if found is not None:
            each = found if isinstance(found, list) else [found]
            return tuple(number for number in each if isinstance(number, int) and not isinstance(number, bool))
    return ()


def _normal_forms(normalizer: object) -> Iterable[str]:
    if not isinstance(normalizer, dict):
        return
    if normalizer.get("type") == "Sequence":
        for part in normalizer.get("normalizers") or ():
            yield from _normal_forms(part)
    elif normalizer.get("type") in ("NFC", "NFD", "NFKC", "NFKD"):
        yield str(normalizer["type"])
