"""Checks of a model's small files before it is converted, and settings for llama.cpp's own script.

``choose_converter`` chooses between that script and the converter of this package; ``steps.convert_official`` runs it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.convert.adapter_formats import ADAPTER, SETTINGS
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.core.converter_choice import ConverterChoice
from llama_runner.core.errors import SourceError
from llama_runner.core.files_of_model_directory import CODE

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.converter_choice import ConverterChoice

WITHOUT_TOKENIZER = frozenset({"WavTokenizerDec"})
"""Architectures of llama.cpp's own script that have no vocabulary."""


def check_weights(directory: Path) -> None:
    """Raise ``SourceError`` if there are no safetensors, or if the index names other files."""
    from llama_runner.convert import find_weight_files  # noqa: PLC0415 - not on the warm path

    find_weight_files.find_shards(ModelDirectory(directory))


def check_tokenizer(directory: Path) -> None:
    """Raise ``SourceError`` for a model saved without a tokenizer, as training checkpoints are."""
    from llama_runner.convert.errors import no_tokenizer_error, reading  # noqa: PLC0415 - not on the warm path

    with reading(directory):
        names = [entry.name for entry in directory.iterdir()]
    if not any(name.endswith(_TOKENIZER) or "vocab" in name for name in names):
        raise no_tokenizer_error(directory)


def check_own_code(directory: Path, choice: ConverterChoice) -> None:
    """Raise ``SourceError`` if the script would have to run the model's own Python code for its tokenizer.

    A SentencePiece model may be read without it, except by the classes that always load the tokenizer.
    """
    if CODE in choice.reads:
        return
    from llama_runner.convert.errors import own_code_error, reading  # noqa: PLC0415 - not on the warm path
    from llama_runner.convert.vocab.remote_code import own_code  # noqa: PLC0415 - as above

    source, name, has_pieces = ModelDirectory(directory), None, False
    with suppress(SourceError):  # a broken file is the script's to judge
        name = own_code(source.optional_object("tokenizer_config.json"))
        with reading(directory):
            has_pieces = any(path.suffix == ".model" for path in directory.iterdir())
    if name is None:
        return
    if not has_pieces or choice.architecture.startswith("ChatGLM"):
        raise own_code_error(name)


def check_adapter(directory: Path) -> None:
    """Raise ``SourceError`` if a LoRA adapter has no settings, or no safetensors that can be read."""
    from llama_runner.convert import find_weight_files  # noqa: PLC0415 - few have any
    from llama_runner.convert.errors import BrokenShard, MissingFile  # noqa: PLC0415

    source = ModelDirectory(directory)
    source.object(SETTINGS, purpose="the adapter's settings")
    if not source.has(ADAPTER):
        raise MissingFile(source.path(ADAPTER), purpose="the adapter's weights", hint=_AS_SAFETENSORS)
    if not find_weight_files.read(source.path(ADAPTER)).tensors:
        raise BrokenShard(source.path(ADAPTER), "it has no tensors")


_TOKENIZER = ("tokenizer.json", "tekken.json", ".model", ".tiktoken")
"""How the names of files end that hold a vocabulary, besides those with ``vocab`` in them."""
_AS_SAFETENSORS = "pickles are never loaded: save it as safetensors where you trust it"


def splits_by_structure(directory: Path) -> str | None:
    """Return llama.cpp's name of a pre-tokenizer that is recognised by its structure."""
    from llama_runner.convert.model_config import Config  # noqa: PLC0415 - all of this is for conversion only
    from llama_runner.convert.vocab.recognise_pretokenizer import recognise  # noqa: PLC0415
    from llama_runner.convert.vocab.tokenizer import Tokenizer  # noqa: PLC0415

    source = ModelDirectory(directory)
    # a tokenizer that is none of ours is the script's to judge, whatever is odd about it
    with suppress(SourceError, AttributeError, KeyError, TypeError, ValueError):
        if source.has("tokenizer.json"):
            config = Config("", source.config)
            return recognise(Tokenizer.load(source, config))
    return None


def settings_for_transformers_4(directory: Path) -> dict[str, Any] | None:
    """Return a tokenizer_config.json as transformers 4 reads it, None where it reads the file as it is.

    transformers 5 writes a class and a list of special tokens that version 4 does not have.
    """
    from llama_runner.convert.vocab.tokenizer_classes import CLASS_OF_5, PLAIN_FAST  # noqa: PLC0415 - as above

    source = ModelDirectory(directory)
    try:
        settings = dict(source.optional_object("tokenizer_config.json"))
    except SourceError:  # the script judges it
        return None
    changes: dict[str, Any] = {}
    if settings.get("tokenizer_class") == CLASS_OF_5:
        changes["tokenizer_class"] = PLAIN_FAST
    if isinstance(extra := settings.get("extra_special_tokens"), list):
        del settings["extra_special_tokens"]
        others = settings.get("additional_special_tokens")
        changes["additional_special_tokens"] = [*(others if isinstance(others, list) else []), *extra]
    return {**settings, **changes} if changes else None


def check_pre_tokenizer(name: str) -> None:
    """Raise ``NoSuchPreTokenizer`` for a name that llama.cpp does not have."""
    from llama_runner.convert.errors import NoSuchPreTokenizer  # noqa: PLC0415 - as above
    from llama_runner.convert.vocab.pretokenizer_names import NAMES  # noqa: PLC0415

    if name not in NAMES:
        raise NoSuchPreTokenizer(name, NAMES)


def describe(
    directory: Path, choice: ConverterChoice, *, vocabulary: bool = True, pre_tokenizer: str | None = None
) -> tuple[int | None, tuple[str, ...]]:
    """Return the context length and the weights that the index names, before they are here.

    What would stop our own conversion is raised; of what the script would say nothing is known.
    """
    from llama_runner.convert import describe, find_weight_files  # noqa: PLC0415 - not on the warm path

    if choice.official:
        if not vocabulary:
            return choice.context_length, ()
        check_own_code(directory, choice)
        return choice.context_length, tuple(find_weight_files.named_by_index(ModelDirectory(directory)))
    found = describe(directory, vocabulary=vocabulary, pre_tokenizer=pre_tokenizer)
    return found.context_length, found.shards
