"""Corrections of the converter, and the models that each of them concerns.

Raising ``Convert.version`` converts every model again. A correction that concerns some families or some tokenizers is
an entry of ``CORRECTIONS`` instead. The revision of a model is the number of entries that concern it. It is part of the
key of its conversion unless it is zero, so the keys of models without corrections do not change.

Entries are only appended; a released entry is never changed or removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.convert.families import ARCHITECTURES
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEAD = 256 * 1024
"""Number of bytes at the start of a file that ``Correction.unless`` searches."""


class Correction(Value):
    """Correction of the output; it concerns a model if all conditions hold.

    Every condition depends only on files that are part of the model's digest. It is checked on each start, so it must
    be cheap.
    """

    what: str
    """Description of the corrected error, in one line."""
    families: tuple[str, ...] = ()
    """Modules (``"glm"``) or constants (``"glm.GLM4"``) of ``ARCHITECTURES``; empty for all."""
    has: tuple[str, ...] = ()
    """Files that must be present."""
    lacks: tuple[str, ...] = ()
    """Files that must be absent."""
    unless: tuple[str, str] | None = None
    """A file and a regular expression: not concerned if the expression matches within the first ``HEAD`` bytes."""
    only: tuple[str, str] | None = None
    """The same, for models that are concerned only if it matches. Expressions that begin with a text are fast."""

    def concerns(self, family: str, directory: Path, has: Callable[[str], bool]) -> bool:
        """Return whether it concerns the model in a directory; ``family`` is its value in ``ARCHITECTURES``."""
        return (
            (not self.families or family in self.families or family.partition(".")[0] in self.families)
            and all(map(has, self.has))
            and not any(map(has, self.lacks))
            and (self.only is None or _matches(directory / self.only[0], self.only[1]))
            and not (self.unless is not None and _matches(directory / self.unless[0], self.unless[1]))
        )


_LIKE_LLAMA = ("arcee", "granite", "llama", "ministral")
_WORD_PIECES = ("bert", "distilbert", "nomic")
CORRECTIONS: tuple[Correction, ...] = (
    Correction(
        "a tokenizer.json with byte fallback lost the order of its merges, and got a space before each text",
        families=_LIKE_LLAMA,
        has=("tokenizer.json",),
        lacks=("tokenizer.model",),
        unless=("tokenizer.json", r'"byte_fallback"\s*:\s*(false|null)'),
    ),
    Correction(
        "a word list got lower case whatever the settings say, and special tokens that other models have",
        families=(*_WORD_PIECES, "roberta"),
        has=("vocab.txt",),
        lacks=("tokenizer.json",),
    ),
    Correction(
        "BERT's tokenizer_config.json says otherwise about case or accents than tokenizer.json: the latter was taken",
        families=_WORD_PIECES,
        has=("tokenizer.json",),
        unless=("tokenizer_config.json", r'(?s)^(?=.*"do_lower_case"\s*:\s*true)(?!.*"strip_accents"\s*:\s*[tf])'),
    ),
    Correction(
        "the same, where tokenizer.json is the one that differs from the defaults",
        families=_WORD_PIECES,
        has=("tokenizer.json",),
        unless=("tokenizer.json", r'(?s)"strip_accents"\s*:\s*null,\s*"lowercase"\s*:\s*true'),
    ),
    Correction(
        "BERT without tokenizer_config.json, or with one that does not name them, got special tokens of other models",
        families=_WORD_PIECES,
        has=("tokenizer.json",),
        unless=("tokenizer_config.json", r'(?s)^(?=.*"sep_token")(?=.*"unk_token")(?=.*"mask_token")'),
    ),
    Correction(
        "llama.cpp put BOS first for a pre-tokenizer known by its hash, and the tokenizer puts none (Falcon 3)",
        families=_LIKE_LLAMA,
        has=("tokenizer.json",),
        lacks=("tokenizer.model",),
        unless=("tokenizer.json", r'TemplateProcessing|"byte_fallback"\s*:\s*true'),
    ),
    Correction(
        "a LlamaTokenizer that transformers 5 saved got BOS before each text, whatever its tokenizer.json says",
        families=_LIKE_LLAMA,
        has=("tokenizer.json", "tokenizer_config.json"),
        lacks=("tokenizer.model",),
        only=("tokenizer_config.json", r'"backend"\s*:'),
        unless=("tokenizer_config.json", '"TokenizersBackend"'),
    ),
    Correction(
        "the rotated part of a GPT-NeoX that transformers 5 saved was taken to be a quarter",
        families=("gptneox",),
        only=("config.json", '"rope_parameters"'),
        unless=("config.json", '"rotary_pct"'),
    ),
    Correction(
        "llama.cpp did not drop the space after special tokens of Phi 3, since it looks for another name",
        families=("phi.PHI3", "phi.PHIMOE"),
        has=("tokenizer.model", "tokenizer_config.json"),
        only=("tokenizer_config.json", r'"rstrip"\s*:\s*true'),
        unless=("tokenizer_config.json", '"GPT2Tokenizer"'),
    ),
    Correction(
        "a Llama 3 tokenizer without BOS whose hash is that of smaug-bpe lost ignore_merges",
        families=_LIKE_LLAMA,
        has=("tokenizer.json",),
        lacks=("tokenizer.model",),
        only=("tokenizer.json", r'"ignore_merges"\s*:\s*true'),
        unless=("tokenizer.json", '"TemplateProcessing"'),
    ),
)
"""All corrections since the first version, the oldest first."""


def revision_of(architecture: str, directory: Path, has: Callable[[str], bool]) -> int:
    """Return the revision of the conversion of a model.

    ``architecture`` is the name in config.json. ``directory`` holds the small files, and ``has`` says whether the
    model has a file of a name; of a model on the Hub, some files may not be in the directory yet.
    """
    family = ARCHITECTURES.get(architecture)
    if family is None:
        return 0
    return sum(one.concerns(family, directory, has) for one in CORRECTIONS)


def revision_of_name(pre_tokenizer: str) -> int:
    """Return the number of corrections that concern a model because of the named pre-tokenizer.

    The first one: for some names, llama.cpp added BOS although the tokenizer adds none.
    """
    from llama_runner.convert.vocab.bpe import PUT_BOS  # noqa: PLC0415 - not on the warm path

    return int(pre_tokenizer in PUT_BOS)


def _matches(path: Path, expression: str) -> bool:
    import re  # noqa: PLC0415 - few corrections look into a file

    from llama_runner.system.files import read_head  # noqa: PLC0415

    try:
        return re.search(expression.encode(), read_head(path, HEAD)) is not None
    except OSError:
        return False
