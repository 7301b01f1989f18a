"""llama.cpp's own script: which models it is needed for, and what can be said of one before it is asked.

Only the small files of a model are looked at here. Nothing here runs the script: see ``steps.official``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.convert.errors import AlreadyQuantized
from llama_runner.convert.families import ARCHITECTURES
from llama_runner.convert.source import Source, architecture_of
from llama_runner.core.errors import SourceError
from llama_runner.core.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Converter = Literal["auto", "native", "official"]

_INNER = ("text_config", "llm_config", "lm_config", "language_config", "thinker_config", "vision_config")
"""Parts of a composite's config.json, any of which may name the architecture that the script goes by."""


class UnknownArchitecture(SourceError):
    """Neither we nor llama.cpp's own script can convert it."""

    def __init__(self, architecture: str, known: Iterable[str]) -> None:
        self.architecture = architecture
        from difflib import get_close_matches  # noqa: PLC0415 - not on the warm path

        self.nearest = tuple(get_close_matches(architecture, sorted(known), n=3))
        near = f"the nearest that it knows: {', '.join(self.nearest)}; or " if self.nearest else ""
        super().__init__(
            f"unsupported architecture: {architecture}; llama.cpp's own script does not know it either",
            hint=f"{near}use a GGUF that its makers publish",
        )


class NoProjector(SourceError):
    """A projector is asked for, of a model that neither sees nor hears."""

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        super().__init__(
            f"no projector can be made of {architecture}: llama.cpp's own script knows none for it",
            hint="leave --mmproj out",
        )


class Choice(Value):
    """Who converts a model; ``why`` is a clause where it is not us."""

    official: bool
    architecture: str
    why: str = ""
    context_length: int | None = None


def choose(directory: Path, wanted: Converter = "auto", *, projector: bool = False) -> Choice:
    """Return who converts a model, by its config.json. Raises a ``SourceError`` for one that nobody does.

    With ``projector``, the script must know how to make one too.
    """
    source = Source(directory)
    architecture = architecture_of(source)
    if projector:
        _check(source, architecture, projector=True)
    if wanted == "native":
        return Choice(official=False, architecture=architecture)
    why = "--converter official" if wanted == "official" else _need(source, architecture)
    if why is None:
        return Choice(official=False, architecture=architecture)
    _check(source, architecture)
    return Choice(official=True, architecture=architecture, why=why, context_length=_context(source))


def check_weights(directory: Path) -> None:
    """Raise a ``SourceError`` if there are no weights as safetensors, or an index that names others."""
    from llama_runner.convert import shards  # noqa: PLC0415 - not on the warm path

    shards.find(Source(directory))


def _need(source: Source, architecture: str) -> str | None:
    """Return why the script is needed, None if it is not."""
    if architecture not in ARCHITECTURES:
        return f"{architecture} is not converted here"
    config = source.optional_object("config.json")
    if any(config.get(name) for name in ("quantization_config", "compression_config")) or source.has(_DESCRIPTION):
        from llama_runner.convert import quantized  # noqa: PLC0415 - few models need it

        try:
            quantized.find(source, architecture)
        except AlreadyQuantized as error:
            return f"weights that are {error.method} are not converted here" if error.official else None
    return None


_DESCRIPTION = "hf_quant_config.json"


def _check(source: Source, architecture: str, *, projector: bool = False) -> None:
    """Raise ``UnknownArchitecture`` or ``NoProjector`` for what the script does not convert."""
    from llama_runner.convert.official_names import MODELS, PROJECTORS  # noqa: PLC0415 - few models need it

    config = source.optional_object("config.json")
    names = {architecture}.union(*(_architectures(config.get(part)) for part in _INNER))
    if projector and not names & PROJECTORS:
        raise NoProjector(architecture)
    if not projector and not names & MODELS:
        raise UnknownArchitecture(architecture, MODELS)


def _architectures(part: object) -> set[str]:
    names = part.get("architectures") if isinstance(part, dict) else None
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _context(source: Source) -> int | None:
    """Return the context length, of the model or of its part that reads text."""
    config = source.optional_object("config.json")
    parts: list[Any] = [config, *(config.get(part) for part in _INNER[:-1])]
    for part in parts:
        for name in ("max_position_embeddings", "n_ctx", "n_positions", "max_seq_len", "seq_length"):
            if isinstance(part, dict) and type(part.get(name)) is int:
                return int(part[name])
    return None


def splits_by_structure(directory: Path) -> str | None:
    """Return llama.cpp's name for how a byte-level BPE tokenizer splits text, where its structure tells it."""
    from llama_runner.convert.config import Config  # noqa: PLC0415 - all of this is for conversion only
    from llama_runner.convert.vocab.pretokenizer import recognise  # noqa: PLC0415
    from llama_runner.convert.vocab.tokenizer import Tokenizer  # noqa: PLC0415

    source = Source(directory)
    # a tokenizer that is none of ours is the script's to judge, whatever is odd about it
    with suppress(SourceError, AttributeError, KeyError, TypeError, ValueError):
        if source.has("tokenizer.json"):
            config = Config("", source.optional_object("config.json"))
            return recognise(Tokenizer.load(source, config))
    return None


def check_pre_tokenizer(name: str) -> None:
    """Raise ``NoSuchPreTokenizer`` for a name that llama.cpp does not know."""
    from llama_runner.convert.errors import NoSuchPreTokenizer  # noqa: PLC0415 - as above
    from llama_runner.convert.vocab.known import NAMES  # noqa: PLC0415

    if name not in NAMES:
        raise NoSuchPreTokenizer(name, NAMES)
