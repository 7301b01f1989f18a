"""Chooses what converts a model: the converter of this package, or llama.cpp's own script for the models beyond it.

Reads config.json and other small files of the model; runs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.converter_corrections import revision_of
from llama_runner.convert.families import ARCHITECTURES, FLAT, TEXT_PARTS, TOGETHER
from llama_runner.convert.model_directory import ModelDirectory, architecture_of
from llama_runner.core.converter_choice import Converter, ConverterChoice
from llama_runner.core.errors import SourceError
from llama_runner.core.files_of_model_directory import CODE, PREPROCESSORS, READ_BY_SCRIPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_LLAVA = "LlavaForConditionalGeneration"
"""The script makes the projector of those with the encoder of Pixtral, and fails for all others (CLIP in LLaVA 1.5)."""
_INNER = ("text_config", "llm_config", "lm_config", "language_config", "thinker_config", "vision_config")
"""Parts of a composite's config.json, any of which may name the architecture that the script goes by."""


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
    """A projector was requested for a model without vision or audio, or with an encoder that nothing converts."""

    def __init__(self, architecture: str, encoder: str | None = None) -> None:
        self.architecture = architecture
        self.encoder = encoder
        of = architecture if encoder is None else f"{architecture} with the encoder {encoder}"
        published = ", or pass a projector that its makers publish: -- --mmproj FILE" if encoder else ""
        super().__init__(
            f"no projector can be made of {of}: llama.cpp's own script knows none for it",
            hint=f"leave --mmproj out{published}",
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

    With ``projector``, one must be made too, natively if it can be. ``trusted``: whether the script may run the
    model's own code. ``has`` says whether the model has a file of a name, where not all of its files are in the
    directory.
    """
    config, architecture = source.config, _architecture(source)
    native_projector = projector and wanted != "official" and _has_native_projector(source, has or source.has)
    if projector and not native_projector:
        _check(config, architecture, projector=True)
    insisted = "--converter official" if wanted == "official" else None
    why = _need(source, architecture) if wanted == "auto" else insisted
    if why is None:
        revision = revision_of(architecture, source.directory, has or source.has)
        return ConverterChoice(
            official=False, architecture=architecture, revision=revision, native_projector=native_projector
        )
    _check(config, architecture)
    reads = (*READ_BY_SCRIPT, CODE) if trusted else READ_BY_SCRIPT
    return ConverterChoice(
        official=True,
        architecture=architecture,
        why=why,
        context_length=_context(config),
        reads=reads,
        native_projector=native_projector,
    )


def _architecture(source: ModelDirectory) -> str:
    """Return the first architecture of config.json, or of one of its parts."""
    config = source.config
    return next(iter(_architectures(config) or _inner(config)), None) or architecture_of(source)


def _has_native_projector(source: ModelDirectory, has: Callable[[str], bool]) -> bool:
    """Return whether the projector is converted natively.

    Raises ``MissingFile`` for a model that does not say how images are prepared: the script would fail as well.
    """
    from llama_runner.convert.projectors import is_native_projector  # noqa: PLC0415 - few are made

    if not is_native_projector(source.config):
        return False
    if not any(map(has, PREPROCESSORS)):
        from llama_runner.convert.errors import no_preprocessor_error  # noqa: PLC0415 - not on the warm path

        raise no_preprocessor_error(source.path(PREPROCESSORS[0]))
    return True


def _need(source: ModelDirectory, architecture: str) -> str | None:
    """Return why the script is needed, None if it is not; raises ``AlreadyQuantized`` if it would refuse too."""
    config, why = source.config, _stored(source, architecture)
    if architecture not in ARCHITECTURES or not config.get("architectures"):
        return f"{architecture} is not converted here"
    if architecture in TEXT_PARTS and ("text_config" in config or architecture not in FLAT):
        kind = _kind_of_reader(config, **TEXT_PARTS[architecture])
        if kind is not None:
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
    return f"quantized experts of {architecture} are not converted here" if architecture in TOGETHER else None


def _kind_of_reader(
    config: Mapping[str, Any], *, model_type: tuple[str, ...], architectures: tuple[str, ...]
) -> str | None:
    """Return the type of an unsupported text part, None if it is supported."""
    part = config.get("text_config")
    kind = part.get("model_type") if isinstance(part, dict) else None
    unknown = [name for name in _architectures(part) if name not in architectures]
    return None if kind in model_type and not unknown else str(next(iter(unknown), kind))


_DESCRIPTION = "hf_quant_config.json"


def _check(config: Mapping[str, Any], architecture: str, *, projector: bool = False) -> None:
    """Raise ``UnknownArchitecture`` or ``NoProjector`` for models that the script does not convert."""
    from llama_runner.convert.official_architectures import MODELS, PROJECTORS  # noqa: PLC0415 - few models need it

    names = {architecture, *_inner(config)}
    if projector and not names & PROJECTORS:
        raise NoProjector(architecture)
    if projector and architecture == _LLAVA and isinstance(vision := config.get("vision_config"), dict):
        encoder = vision.get("model_type") or "clip_vision_model"
        if encoder != "pixtral" and vision.get("architectures") is None:
            raise NoProjector(architecture, str(encoder))
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
