"""Reads tokenizer.json and its companion files as transformers does for llama.cpp's converter.

Which tokens count as added and as special depends on tokenizer.json, tokenizer_config.json, special_tokens_map.json,
added_tokens.json and on what the tokenizer's class adds by itself; this module does the same (transformers 4.57,
``PreTrainedTokenizerFast``) without running any of it. A class that is not listed in `tokenizer_classes` is refused,
since what it adds is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import NO_WAY, BadVocabulary, UnsupportedOption
from llama_runner.convert.vocab import without_tokenizer_json
from llama_runner.convert.vocab.tokenizer_classes import (
    CLASS_OF_MODEL_TYPE,
    CLASSES,
    FRAMING,
    NORMALIZER_SETTINGS,
    SAVED_BY_5,
    SETTING_NORMALIZER,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

ATTRIBUTES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
CLEANED = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


@dataclass(frozen=True)
class AddedToken:
    """Token added to the vocabulary after training."""

    content: str
    special: bool = False
    normalized: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False

    @classmethod
    def parse(cls, entry: object, *, special: bool | None = None) -> AddedToken:
        """Parse an object of tokenizer.json or tokenizer_config.json."""
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise BadVocabulary(f"an added token is {entry!r}, an object with its content is expected")
        is_special = bool(entry.get("special", False)) if special is None else special
        flags = {name: bool(entry.get(name, False)) for name in ("lstrip", "rstrip", "single_word")}
        return cls(entry["content"], is_special, bool(entry.get("normalized", not is_special)), **flags)

    @classmethod
    def named(cls, content: str) -> AddedToken:
        """Return a special token of which only the text is known."""
        return cls(content, special=True, normalized=False)


@dataclass(frozen=True)
class Tokenizer:
    """Vocabulary of a fast tokenizer: ``base`` as trained, ``added`` by number, ``specials`` in order.

    ``document`` is tokenizer.json with what transformers changes in it when it loads it; ``named`` are the texts of
    special tokens by name (``cls_token``).
    """

    model: Mapping[str, Any]
    document: Mapping[str, Any]
    base: Mapping[str, int]
    added: Mapping[int, AddedToken]
    specials: tuple[str, ...]
    clean_up: bool
    named: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, source: ModelDirectory, config: Config) -> Tokenizer:
        """Read the tokenizer's files; raises a typed error for missing or unsupported ones."""
        settings = source.optional_object("tokenizer_config.json")
        own_class = _class_of(settings, config)
        defaults = CLASSES[own_class]
        document = source.optional_object("tokenizer.json") or without_tokenizer_json.tokenizer_document(
            source, own_class
        )
        model = document.get("model")
        if not isinstance(model, dict) or "vocab" not in model:
            raise BadVocabulary("tokenizer.json has no vocabulary")
        base = _base(model)
        wanted, specials, named = _settings(source, settings, defaults, document)
        added = _AddedTokens(base, document)
        added.bring_up_to(wanted, specials)
        clean_up = bool(settings.get("clean_up_tokenization_spaces", False))
        framed = {key: settings.get(key, defaults.get(key)) for key in ("bos_token", "eos_token")}
        framed |= {f"add_{key}": settings.get(f"add_{key}") for key in framed}
        document = {
            **document,
            "normalizer": _cased(document.get("normalizer"), settings, own_class),
            "pre_tokenizer": _prefixed(document.get("pre_tokenizer"), settings),
            "post_processor": _framed(document.get("post_processor"), framed, added, _puts_bos(settings, own_class)),
        }
        texts = tuple(token.content for token in specials)
        return cls(model, document, base, added.by_number, texts, clean_up, named)

    @property
    def byte_fallback(self) -> bool:
        """Whether this is a SentencePiece vocabulary in the form of a tokenizer.json."""
        decoder = self.document.get("decoder")
        if not self.model.get("byte_fallback") or self.model.get("type") != "BPE":
            return False
        return isinstance(decoder, dict) and decoder.get("type") == "Sequence"

    def numbered(self) -> dict[int, str]:
        """Return all tokens by number, including added ones."""
        tokens = {number: token for token, number in self.base.items()}
        tokens.update((number, token.content) for number, token in self.added.items())
        return tokens

    def shown(self, token: AddedToken) -> str:
        """Return an added token after encoding and decoding, as the converter does for tokens without normalization."""
        decoder = self.document.get("decoder") or {}
        text = token.content
        kind = decoder.get("type")
        if kind == "ByteLevel":
            text = _bytes_shown(text)
        elif kind == "WordPiece" and decoder.get("cleanup", True):
            text = _cleaned(text.replace(" do not", " don't"))
        return _cleaned(text) if self.clean_up else text


def _base(model: Mapping[str, Any]) -> dict[str, int]:
    """Return the trained tokens and their numbers."""
    vocabulary, kind = model["vocab"], model.get("type", "BPE")
    if kind not in ("BPE", "WordPiece", "Unigram"):
        raise UnsupportedOption("the tokenizer's model", kind, hint=NO_WAY)
    if kind == "Unigram":  # pieces with scores, in the order of their numbers
        vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    if not isinstance(vocabulary, dict) or not all(type(n) is int and n >= 0 for n in vocabulary.values()):
        raise BadVocabulary("the vocabulary in tokenizer.json is not an object of token numbers")
    if len(set(vocabulary.values())) < len(vocabulary):
        seen: dict[int, str] = {}
        one, other = next((seen[n], text) for text, n in vocabulary.items() if seen.setdefault(n, text) != text)
        raise BadVocabulary(f"tokenizer.json gives {one!r} and {other!r} the same number {vocabulary[one]}")
    return vocabulary


def _class_of(settings: Mapping[str, Any], config: Config) -> str:
    name = settings.get("tokenizer_class") or config.find("tokenizer_class")
    if name is None:
        name = CLASS_OF_MODEL_TYPE.get(str(config.find("model_type")), "")
    plain = str(name).removesuffix("Fast")
    if plain not in CLASSES:
        raise UnsupportedOption("tokenizer_class", name, hint=f"known are {', '.join(sorted(CLASSES))}")
    return plain


def _puts_bos(settings: Mapping[str, Any], own_class: str) -> bool | None:
    """Return whether the class puts BOS before a text by default; None where tokenizer.json says what is put."""
    if SAVED_BY_5 not in settings:
        return FRAMING.get(own_class)
    return False if any(f"add_{kind}_token" in settings for kind in ("bos", "eos")) else None


def _cased(step: object, settings: Mapping[str, Any], own_class: str) -> object:
    """Return the normalizer; for BERT, the settings and their defaults override its options."""
    if own_class not in SETTING_NORMALIZER or not isinstance(step, dict) or step.get("type") != "BertNormalizer":
        return step
    return {**step, **{key: settings.get(name, default) for key, (name, default) in NORMALIZER_SETTINGS.items()}}


def _prefixed(step: object, settings: Mapping[str, Any]) -> object:
    """Return the pre-tokenizer; for a single step, the settings override whether a space is added first.

    Not so where transformers 5 saved it.
    """
    if SAVED_BY_5 in settings or not isinstance(step, dict):
        return step
    if "add_prefix_space" in step and step.get("type") != "Metaspace":
        return {**step, "add_prefix_space": bool(settings.get("add_prefix_space", False))}
    return step


def _framed(processor: object, framed: Mapping[str, Any], added: _AddedTokens, default: bool | None) -> object:
    """Return the post-processor, replaced if the tokenizer's class makes its own (else ``default`` is None)."""
    if default is None:
        return processor
    wanted = {"bos_token": default, "eos_token": False}
    used = {key: framed[f"add_{key}"] if framed[f"add_{key}"] is not None else wanted[key] for key in wanted}
    texts = {key: _text(framed[key]) for key, use in used.items() if use and framed[key] is not None}
    around = {key: [{"SpecialToken": {"id": text}}] for key, text in texts.items()}
    single = [*around.get("bos_token", []), {"Sequence": {"id": "A"}}, *around.get("eos_token", [])]
    special = {text: {"id": text, "ids": [added.number(text)]} for text in texts.values()}
    return {"type": "TemplateProcessing", "single": single, "special_tokens": special}


def _settings(
    source: ModelDirectory, settings: Mapping[str, Any], defaults: Mapping[str, str], document: Mapping[str, Any]
) -> tuple[list[AddedToken], list[AddedToken], dict[str, str]]:
    """Return the tokens to add by number, the special ones, and their texts by name."""
    attributes: dict[str, Any] = {**defaults, **{key: settings[key] for key in ATTRIBUTES if key in settings}}
    if (padding := document.get("padding")) and isinstance(padding, dict):
        attributes.setdefault("pad_token", padding.get("pad_token"))
    extra = list(settings.get("additional_special_tokens") or [])
    wanted: dict[int, AddedToken] = {}
    listed = settings.get("added_tokens_decoder")
    if isinstance(listed, dict):
        wanted = {int(number): AddedToken.parse(entry) for number, entry in listed.items() if number.isdecimal()}
    else:
        attributes, extra = _with_map(source, attributes, extra)
        names = {_text(value) for value in [*attributes.values(), *extra] if value is not None}
        for token, number in source.optional_object("added_tokens.json").items():
            special = token in names
            wanted[int(number)] = AddedToken(token, special=special, normalized=not special)
        for entry in document.get("added_tokens") or []:
            token_added = AddedToken.parse(entry)
            wanted[int(entry.get("id", -1))] = token_added
    known = {token.content: token for token in wanted.values()}
    specials: dict[str, AddedToken] = {}
    named = [attributes.get(key) for key in ATTRIBUTES]
    for value in [*named, *extra, *_extra_specials(settings)]:
        if value is not None and (text := _text(value)) not in specials:
            specials[text] = known.get(text) or (
                AddedToken.parse(value, special=True) if isinstance(value, dict) else AddedToken.named(text)
            )
    texts = {key: _text(attributes[key]) for key in ATTRIBUTES if attributes.get(key) is not None}
    return [token for _, token in sorted(wanted.items())], list(specials.values()), texts


def _with_map(source: ModelDirectory, attributes: dict[str, Any], extra: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Apply special_tokens_map.json, which overrides a tokenizer_config.json that lists no added tokens."""
    special = source.optional_object("special_tokens_map.json")
    attributes = {**attributes, **{key: special[key] for key in ATTRIBUTES if key in special}}
    extra += [token for token in special.get("additional_special_tokens") or [] if token not in extra]
    return attributes, extra


def _extra_specials(settings: Mapping[str, Any]) -> Iterable[Any]:
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, dict):
        return extra.values()
    return extra if isinstance(extra, list) else ()


def _text(value: object) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise BadVocabulary(f"a special token is {value!r}, a text is expected")
    return text


class _AddedTokens:
    """Added tokens of a tokenizer, numbered as in the tokenizers library."""

    def __init__(self, base: Mapping[str, int], document: Mapping[str, Any]) -> None:
        self.base = base
        self.by_number: dict[int, AddedToken] = {}
        self._numbers: dict[str, int] = {}
        for entry in document.get("added_tokens") or []:
            token = AddedToken.parse(entry)
            self.add(token)
            if token.content and self._numbers[token.content] != entry.get("id"):
                raise BadVocabulary(
                    f"added token {token.content!r} has the number {entry.get('id')} in tokenizer.json, "
                    f"its place is {self._numbers[token.content]}"
                )

    def add(self, token: AddedToken) -> None:
        """Add a token; an existing one keeps its number and gets the new properties."""
        if not token.content:
            return
        number = self._numbers.get(token.content, self.base.get(token.content))
        if number is None:
            number = max(max(self._numbers.values(), default=-1) + 1, len(self.base))
        self._numbers[token.content] = number
        self.by_number[number] = token

    def number(self, text: str) -> int | None:
        """Return the number of a token, None if there is none with the text."""
        return self._numbers.get(text, self.base.get(text))

    def bring_up_to(self, wanted: list[AddedToken], specials: list[AddedToken]) -> None:
        """Add the tokens of the settings; existing ones get their properties."""
        known = {token.content for token in [*self.by_number.values(), *wanted]}
        names = {token.content for token in specials}
        for token in [*wanted, *(token for token in specials if token.content not in known)]:
            self.add(replace(token, special=token.special or token.content in names))


def _cleaned(text: str) -> str:
    for spaced, joined in CLEANED:
        text = text.replace(spaced, joined)
    return text


def _bytes_shown(text: str) -> str:
    """Decode the byte-level alphabet if all characters belong to it (``Ġ`` is a space)."""
    alphabet = byte_alphabet()
    if not all(character in alphabet for character in text):
        return text
    return bytes(alphabet[character] for character in text).decode("utf-8", errors="replace")


def byte_alphabet() -> dict[str, int]:
    """Return GPT-2's alphabet: a visible character for each byte."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}
