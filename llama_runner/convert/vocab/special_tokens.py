"""Finds the numbers of the special tokens and whether they are added, and writes the metadata that ends a vocabulary.

That is merges (read by ``merges``), special tokens, chat templates (``chat_template``) and flags of the normalizer. The
result is that of ``gguf.SpecialVocab`` in llama.cpp's tree. The published gguf package is older: it reads no normalizer
and finds BOS and CLS differently, so it is not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadVocabulary
from llama_runner.convert.vocab.chat_template import find_template, write_templates
from llama_runner.convert.vocab.merges import read_merges

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_directory import ModelDirectory

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
}
FLAGS = ("bos", "eos", "sep")  # the kinds for which GGUF knows whether to add them


def write(
    values: KeyValues,
    source: ModelDirectory,
    *,
    size: int | None = None,
    merges: bool = False,
    kinds: tuple[str, ...] = KINDS,
    preset: Mapping[str, int] | None = None,
    normalizer: object = None,
) -> None:
    """Write all special metadata. Token numbers from ``size`` on are left out; files override ``preset``.

    ``normalizer`` is taken in place of tokenizer.json's.
    """
    found = _Special(source, kinds, size)
    for kind, number in (preset or {}).items():
        found.set(kind, number)
    if merges:
        values.strings("tokenizer.ggml.merges", read_merges(source))
    for kind, number in found.numbers.items():
        if kind in KEYS:
            values.uint32(f"tokenizer.ggml.{KEYS[kind]}", number)
    for kind, flag in found.flags.items():
        if kind in FLAGS:
            values.boolean(f"tokenizer.ggml.add_{kind}_token", flag)
    write_templates(values, found.template)
    found_normalizer = normalizer or source.optional_object("tokenizer.json").get("normalizer")
    options = dict(_normalizer(found_normalizer))
    for key in ("lowercase", "strip_accents"):
        if options.get(key) is not None:
            values.boolean(f"tokenizer.ggml.normalizer.{key}", options[key])


def _items(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _special_id(entry: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON is anything
    return (entry.get("SpecialToken") or {}).get("id")


class _Special:
    """Collects special tokens from post-processor, tokenizer_config.json and config.json, in this order."""

    def __init__(self, source: ModelDirectory, kinds: tuple[str, ...], size: int | None) -> None:
        self.kinds = kinds
        self.size = size
        self.numbers: dict[str, int] = {}
        self.flags: dict[str, bool] = {}
        self.template: str | list[Any] | None = None
        # what the processors take for BOS, EOS, CLS and SEP
        self.first: Any = None
        self.last: Any = None
        self.cls: Any = None
        self.sep: Any = None
        tokenizer = source.optional_object("tokenizer.json")
        self.settings = dict(source.optional_object("tokenizer_config.json"))
        if tokenizer:
            self._read_processors(tokenizer)
        if self.settings:
            self.template = find_template(source, self.settings)
            self._read_settings(_items(tokenizer.get("added_tokens")))
        config = source.config
        text = config.get("text_config")
        for kind in self.kinds:
            number = config.get(f"{kind}_token_id")
            self.set(kind, text.get(f"{kind}_token_id") if number is None and isinstance(text, dict) else number)

    def set(self, kind: str, number: object) -> None:
        """Set a special token unless it is already set or beyond the vocabulary."""
        if not isinstance(number, int):
            return
        if number < 0:
            raise BadVocabulary(
                f"the number of the {kind} token is {number}",
                hint=f"set {kind}_token_id in config.json to null; the official converter refuses it as well",
            )
        if self.size is None or number < self.size:
            self.numbers.setdefault(kind, number)

    def _token(self, kind: str) -> Any:  # noqa: ANN401 - text, or an object with the text in it
        return self.settings.get(f"{kind}_token")

    def _give(self, kind: str, token: object) -> None:
        if self.settings:  # without tokenizer_config.json there is nothing to complete
            self.settings[f"{kind}_token"] = token

    def _read_settings(self, added: list[dict[str, Any]]) -> None:
        for kind in self.kinds:
            flag = self.settings.get(f"add_{kind}_token")
            if isinstance(flag, bool):
                self.flags[kind] = flag
            token = self._token(kind)
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                self.set(kind, next((item.get("id") for item in added if item.get("content") == text), None))

    def _read_processors(self, tokenizer: Mapping[str, Any]) -> None:
        if not self._token("bos") and self._token("cls"):
            self._give("bos", self._token("cls"))
        if not self._token("eos") and self._token("sep"):
            self._give("eos", self._token("sep"))
        processor = tokenizer.get("post_processor")
        if not isinstance(processor, dict):
            return
        self.first, self.last = self._token("bos"), self._token("eos")
        self.cls, self.sep = self._token("cls"), self._token("sep")
        for step in _items(processor.get("processors", [processor])):
            if step.get("type") == "RobertaProcessing":
                self._read_roberta(step)
            elif step.get("type") == "TemplateProcessing":
                self._read_template(_items(step.get("single")), _items(step.get("pair")))

    def _read_roberta(self, step: Mapping[str, Any]) -> None:
        self.flags.update(bos=True, eos=True, sep=True)
        if not self.cls and self.settings:
            self.cls = step.get("cls", [self.first])[0]
            self._give("cls", self.cls)
        if not self.sep and self.settings:
            self.sep = step.get("sep", [self.last])[0]
            self._give("sep", self.sep)

    def _read_template(self, single: Sequence[dict[str, Any]], pair: Sequence[dict[str, Any]]) -> None:
        """Derive from ``[CLS] A [SEP]`` which special tokens are added around a text."""
        first = last = None
        if len(single) > 1:
            if first := _special_id(single[0]):
                self._put_first(first)
            if last := _special_id(single[-1]):
                self._put_last(last)
        if not pair:
            return
        start = 1 if first and _special_id(pair[0]) == first else 0
        stop = -1 if last and _special_id(pair[-1]) == last else None
        self._read_separator(pair[start:stop], ended=bool(last))

    def _put_first(self, token: str) -> None:
        if not self.settings:
            self.first = token
        elif token not in (self.first, self.cls):
            if not self.first:
                self.first = token
                self._give("bos", token)
            if not self.cls:
                self.cls = token
                self._give("cls", token)
        self.flags["bos"] = token in (self.first, self.cls)

    def _put_last(self, token: str) -> None:
        """Use the template's last token as EOS; the named EOS then ends a turn or a message."""
        if self.settings and token != self.last:
            spare = next((kind for kind in ("eot", "eom") if kind not in self.kinds), None)
            if spare is not None:
                self.kinds = (*self.kinds, spare)
                self._give(spare, self.last)
            self._give("eos", token)
        self.last = token
        self.flags["eos"] = True

    def _read_separator(self, pair: Sequence[dict[str, Any]], *, ended: bool) -> None:
        """Derive from the text between A and B whether separators are added."""
        if not pair or _sequence(pair[0]) != "A" or _sequence(pair[-1]) != "B":
            return
        between = pair[1:-1]
        if not between:
            return
        separators = (self.sep, self.last)
        entry = _special_id(between[0])
        add = bool(entry) and entry in separators and not ended
        if len(between) == 2:  # noqa: PLR2004 - one token that ends A, one that begins B
            entry = _special_id(between[1])
            add = add or (bool(entry) and entry in separators)
        self.flags["sep"] = add
        if add and not self.sep and self.settings:
            self._give("sep", self.last)


def _sequence(entry: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON is anything
    return (entry.get("Sequence") or {}).get("id")


def _normalizer(normalizer: object) -> Iterator[tuple[str, object]]:
    if not isinstance(normalizer, dict):
        return
    kind = normalizer.get("type")
    if kind == "Lowercase":
        yield "lowercase", True
    elif kind == "StripAccents":
        yield "strip_accents", True
    elif kind == "BertNormalizer":
        yield from ((key, normalizer[key]) for key in ("lowercase", "strip_accents") if key in normalizer)
    elif kind == "Sequence":
        for part in _items(normalizer.get("normalizers")):
            yield from _normalizer(part)
