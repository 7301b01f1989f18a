"""Decides which models need llama.cpp's own script, and describes them beforehand.

Only the small files of a model are looked at here. Nothing here runs the script: see ``steps.convert_official``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.convert.converter_corrections import revision_of
from llama_runner.convert.families import ARCHITECTURES, TEXT_PARTS
from llama_runner.convert.model_directory import ModelDirectory, architecture_of
from llama_runner.core.converter_choice import Converter, ConverterChoice
from llama_runner.core.errors import SourceError
from llama_runner.core.model_files import CODE, READ_BY_SCRIPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path


_INNER = ("text_config", "llm_config", "lm_config", "language_config", "thinker_config", "vision_config")
"""Parts of a composite's config.json, any of which may name the architecture that the script goes by."""


WITHOUT_TOKENIZER = frozenset({"WavTokenizerDec"})
"""Architectures of llama.cpp's own script that have no vocabulary."""


class UnknownArchitecture(SourceError):
    """Neither the built-in converter nor llama.cpp's script converts the architecture."""

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
    """A projector was requested for a model without vision or audio."""

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        super().__init__(
            f"no projector can be made of {architecture}: llama.cpp's own script knows none for it",
            hint="leave --mmproj out",
        )


def choose_converter(
    source: ModelDirectory,
    wanted: Converter = "auto",
    *,
    projector: bool = False,
    trusted: bool = False,
    has: Callable[[str], bool] | None = None,
) -> ConverterChoice:
    """Return the converter for a model by its config.json; raises ``SourceError`` if there is none.

    With ``projector``, the script must know how to make one too. ``trusted``: whether it may run the model's own code.
    ``has`` says whether the model has a file of a name, where not all of its files are in the directory.
    """
    config, architecture = source.config, _architecture(source)
    if projector:
        _check(config, architecture, projector=True)
    insisted = "--converter official" if wanted == "official" else None
    why = _need(source, architecture) if wanted == "auto" else insisted
    if why is None:
        revision = revision_of(architecture, source.directory, has or source.has)
        return ConverterChoice(official=False, architecture=architecture, revision=revision)
    _check(config, architecture)
    reads = (*READ_BY_SCRIPT, CODE) if trusted else READ_BY_SCRIPT
    return ConverterChoice(
        official=True, architecture=architecture, why=why, context_length=_context(config), reads=reads
    )


def _architecture(source: ModelDirectory) -> str:
    """Return the first architecture of config.json, or of one of its parts."""
    config = source.config
    return next(iter(_architectures(config) or _inner(config)), None) or architecture_of(source)


def check_weights(directory: Path) -> None:
    """Raise ``SourceError`` if there are no safetensors, or if the index names other files."""
    from llama_runner.convert import shards  # noqa: PLC0415 - not on the warm path

    shards.find_shards(ModelDirectory(directory))


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
    from llama_runner.convert.vocab.script_tokenizers import own_code  # noqa: PLC0415 - as above

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
    from llama_runner.convert import shards  # noqa: PLC0415 - few have any
    from llama_runner.convert.errors import BrokenShard, MissingFile  # noqa: PLC0415

    source = ModelDirectory(directory)
    source.object("adapter_config.json", purpose="the adapter's settings")
    if not source.has(_ADAPTER):
        raise MissingFile(source.path(_ADAPTER), purpose="the adapter's weights", hint=_AS_SAFETENSORS)
    if not shards.read(source.path(_ADAPTER)).tensors:
        raise BrokenShard(source.path(_ADAPTER), "it has no tensors")


def _need(source: ModelDirectory, architecture: str) -> str | None:
    """Return why the script is needed, None if it is not; raises ``AlreadyQuantized`` if it would refuse too."""
    config, why = source.config, _stored(source, architecture)
    if architecture not in ARCHITECTURES or not config.get("architectures"):
        return f"{architecture} is not converted here"
    if architecture in TEXT_PARTS and (kind := _kind_of_reader(config, **TEXT_PARTS[architecture])) is not None:
        return f"{architecture} with a text model of the kind {kind} is not converted here"
    return why


def _stored(source: ModelDirectory, architecture: str) -> str | None:
    """Return why quantized weights need the script; raises ``AlreadyQuantized`` if it cannot read them."""
    config = source.config
    if not source.has(_DESCRIPTION) and not any(
        config.get(name) for name in ("quantization_config", "compression_config")
    ):
        return None
    from llama_runner.convert import quantization_config  # noqa: PLC0415 - few models need it
    from llama_runner.convert.errors import AlreadyQuantized  # noqa: PLC0415

    try:
        quantization_config.find_quantization(source, architecture)
    except AlreadyQuantized as error:
        if not error.official:
            raise
        return f"weights that are {error.method} are not converted here"
    return None


def _kind_of_reader(
    config: Mapping[str, Any], *, model_type: tuple[str, ...], architectures: tuple[str, ...]
) -> str | None:
    """Return the type of an unsupported text part, None if it is supported."""
    part = config.get("text_config")
    kind = part.get("model_type") if isinstance(part, dict) else None
    unknown = [name for name in _architectures(part) if name not in architectures]
    return None if kind in model_type and not unknown else str(next(iter(unknown), kind))


_DESCRIPTION = "hf_quant_config.json"
_TOKENIZER = ("tokenizer.json", "tekken.json", ".model", ".tiktoken")
"""How the names of files end that hold a vocabulary, besides those with ``vocab`` in them."""
_ADAPTER = "adapter_model.safetensors"
_AS_SAFETENSORS = "pickles are never loaded: save it as safetensors where you trust it"


def _check(config: Mapping[str, Any], architecture: str, *, projector: bool = False) -> None:
    """Raise ``UnknownArchitecture`` or ``NoProjector`` for models that the script does not convert."""
    from llama_runner.convert.official_architectures import MODELS, PROJECTORS  # noqa: PLC0415 - few models need it

    names = {architecture, *_inner(config)}
    if projector and not names & PROJECTORS:
        raise NoProjector(architecture)
    if not projector and not names & MODELS:
        raise UnknownArchitecture(architecture, MODELS)


def _inner(config: Mapping[str, Any]) -> list[str]:
    """Return the architectures of a composite's parts, and that of an old Mamba, which names none."""
    old = ["MambaForCausalLM"] if "ssm_cfg" in config else []
    return [*(name for part in _INNER for name in _architectures(config.get(part))), *old]


def _architectures(part: object) -> list[str]:
    names = part.get("architectures") if isinstance(part, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _context(config: Mapping[str, Any]) -> int | None:
    """Return the context length of the model or of its text part; None if it is invalid."""
    from llama_runner.convert.config_number_limits import POSITIONS  # noqa: PLC0415 - few models need it

    parts: list[Any] = [config, *(config.get(part) for part in _INNER[:-1])]
    for part in parts:
        for name in ("max_position_embeddings", "n_ctx", "n_positions", "max_seq_len", "seq_length"):
            if isinstance(part, dict) and type(part.get(name)) is int and 0 < part[name] <= POSITIONS:
                return int(part[name])
    return None


def splits_by_structure(directory: Path) -> str | None:
    """Return llama.cpp's name of a pre-tokenizer that is recognised by its structure."""
    from llama_runner.convert.model_config import Config  # noqa: PLC0415 - all of this is for conversion only
    from llama_runner.convert.vocab.pretokenizer import recognise  # noqa: PLC0415
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
    from llama_runner.convert import describe, shards  # noqa: PLC0415 - not on the warm path

    if choice.official:
        if not vocabulary:
            return choice.context_length, ()
        check_own_code(directory, choice)
        return choice.context_length, tuple(shards.named_by_index(ModelDirectory(directory)))
    found = describe(directory, vocabulary=vocabulary, pre_tokenizer=pre_tokenizer)
    return found.context_length, found.shards
