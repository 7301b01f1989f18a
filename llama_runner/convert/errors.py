"""Everything that can be wrong with a model directory, one class or function per cause.

All end the command line with the status for a source that cannot be used. What goes wrong while *writing* (a full
disk) is not here: the ``OSError`` goes to the caller, who knows what it was writing for.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import ExitCode, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHOWN = 200
"""Characters of a foreign value that an error shows."""
MENTIONED = 5  # names listed in an error before "and N more"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    text = ", ".join(listed[:MENTIONED])
    return text if len(listed) <= MENTIONED else f"{text} and {len(listed) - MENTIONED} more"


def _shown(value: object) -> str:
    """Return a value as Python writes it, shortened."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of too many digits
        return f"a {type(value).__name__}"
    return _short(text)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def no_such_directory_error(path: Path) -> SourceError:
    """The model directory does not exist or is not a directory."""
    return SourceError(f"model directory not found: {path}", hint="give the directory that holds config.json")


class MissingFile(SourceError):
    """A file that every checkpoint of this kind has is not there."""

    def __init__(self, path: Path, *, purpose: str, hint: str | None = None) -> None:
        super().__init__(
            f"{path.name} is missing, needed for {purpose}: {path}",
            hint=hint or "fetch the model again with all its files",
        )
        self.path = path
        self.purpose = purpose


class UnreadableFile(SourceError):
    """A file of the checkpoint does not hold what its name promises, or the system does not let us read it."""

    def __init__(self, path: Path, problem: str, *, hint: str = "fetch the file again") -> None:
        super().__init__(f"{path.name} cannot be read: {problem}: {path}", hint=hint)
        self.path = path
        self.problem = problem


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise `UnreadableFile` for what the system refuses while ``path``, or files in it, are read."""
    try:
        yield
    except OSError as error:
        found = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else path
        why = error.strerror or str(error)
        raise UnreadableFile(found, why, hint="make it readable for this user, or fetch the model again") from error


def no_tokenizer_error(path: Path) -> SourceError:
    """The directory holds a model and no tokenizer at all."""
    return SourceError(f"no tokenizer in {path}", hint=f'save it there: tokenizer.save_pretrained("{path}")')


def only_pickles_error(names: Iterable[str]) -> SourceError:
    """The weights are Python pickles; loading one runs whatever code it carries, so they are refused."""
    names = tuple(names)
    return SourceError(
        f"the weights are Python pickles, which are never loaded: {_some(names)}",
        hint="convert them to safetensors where you trust them (safetensors.torch.save_file), "
        "or use a repository that has model.safetensors",
    )


def no_weights_error(path: Path) -> SourceError:
    """The directory holds no model weights at all."""
    return SourceError(f"no weights found (model*.safetensors) in {path}", hint="fetch the model's safetensors files")


def absent_shard_error(path: Path, shards: Iterable[str]) -> SourceError:
    """The index names shards that are not there."""
    shards = tuple(shards)
    return SourceError(f"{path.name} names shards that are missing: {_some(shards)}", hint="fetch them")


def index_mismatch_error(path: Path, *, missing: Iterable[str], extra: Iterable[str]) -> SourceError:
    """The index and the shards disagree about which tensors there are."""
    missing = tuple(missing)
    extra = tuple(extra)
    facts = [f"named but in no shard: {_some(missing)}"] if missing else []
    facts += [f"in a shard but not named: {_some(extra)}"] if extra else []
    return SourceError(
        f"{path.name} and the shards disagree; tensors {'; '.join(facts)}",
        hint="index and shards are from different versions; fetch all of them again",
    )


def duplicate_tensor_error(name: str, shards: tuple[str, str]) -> SourceError:
    """One tensor stands in two shards."""
    return SourceError(
        f"tensor {name} is in two shards: {shards[0]} and {shards[1]}",
        hint="remove the shard that belongs to another version of the model",
    )


class BrokenShard(SourceError):
    """A safetensors file breaks the rules of its format.

    ``reference`` is what the safetensors library says of it: None where it was not asked, empty where it reads it.
    """

    def __init__(self, path: Path, problem: str, *, reference: str | None = None) -> None:
        said = f" (the safetensors library: {reference})" if reference else ""
        hint = "fetch the file again"
        if reference == "":
            hint = "the safetensors library reads it; if you trust it, load it and save it again with that library"
        super().__init__(f"{path.name} is not a valid safetensors file: {problem}{said}: {path}", hint=hint)
        self.path, self.problem, self.reference = path, problem, reference


class SourceChanged(SourceError):
    """A source file is not the one that was inspected; what was written from it would be a mixture."""

    code = ExitCode.STEP  # the source was sound when the step began

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path.name} changed while it was read: {path}", hint="run again when nothing writes to it")
        self.path = path


def unsupported_architecture_error(architecture: str, supported: Iterable[str]) -> SourceError:
    """No family here knows the architecture."""
    supported = tuple(supported)
    return SourceError(
        f"unsupported architecture: {architecture}",
        hint=f"supported: {', '.join(supported)}; or use a GGUF that its makers publish",
    )


class UnsupportedOption(SourceError):
    """The architecture is known, but the checkpoint asks for something that cannot be written faithfully."""

    def __init__(self, option: str, value: object, *, hint: str | None = None) -> None:
        super().__init__(
            f"unsupported: {option} is {_shown(value)}",
            hint=hint or "llama.cpp's own script may know it: --converter official",
        )
        self.option = option
        self.value = value


class AlreadyQuantized(SourceError):
    """The checkpoint's weights are quantized already, in a way that is not undone here (AWQ, bitsandbytes, …).

    ``official`` says whether llama.cpp's own script converts it, ``originals`` the models that its card names.
    """

    def __init__(self, method: str, *, official: bool = False, originals: Iterable[str] = ()) -> None:
        self.method = method
        self.official = official
        self.originals = tuple(originals)
        original = f"the original checkpoint ({_some(self.originals)})" if self.originals else "the original checkpoint"
        way = f"convert {original}, which is not quantized, and choose a quantization of your own"
        super().__init__(
            f"the checkpoint is already quantized: {method}",
            hint=f"llama.cpp's own script converts it; or {way}" if official else way,
        )


class BrokenQuantization(SourceError):
    """The tensors that a quantized tensor is stored in do not fit together."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(
            f"tensor {name} {problem}",
            hint="config.json and the weights belong to different models or versions; fetch all files again",
        )
        self.name = name
        self.problem = problem


def undeclared_quantization_error(name: str, dtype: str) -> SourceError:
    """Weights are quantized, and config.json does not say how."""
    return SourceError(
        f"the weights are quantized, and config.json has no quantization_config: {name} is stored as {dtype}",
        hint="fetch config.json again, or convert the original checkpoint, which is not quantized",
    )


class BadHyperparameter(SourceError):
    """config.json lacks a value or holds one that cannot be."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(
            f"config.json: {_short(name)} {_short(problem)}",
            hint="fetch config.json again; it is the model maker's file",
        )
        self.name = name
        self.problem = problem


def unexpected_structure_error(problem: str) -> SourceError:
    """A value of config.json has a type that the code does not expect."""
    return SourceError(
        f"config.json has an unexpected structure ({_short(problem)})",
        hint="fetch config.json again; it is the model maker's file",
    )


def wrong_shape_error(name: str, *, found: tuple[int, ...], expected: tuple[int, ...]) -> SourceError:
    """A tensor has not the shape that config.json implies."""
    return SourceError(
        f"tensor {name} has shape {list(found)}, config.json implies {list(expected)}",
        hint="config.json and the weights belong to different models or versions",
    )


def missing_tensors_error(names: Iterable[str]) -> SourceError:
    """Tensors that the architecture needs are in no shard."""
    names = tuple(names)
    return SourceError(f"tensors are missing: {_some(names)}", hint="fetch all the model's shards")


def unknown_tensors_error(names: Iterable[str], family: str) -> SourceError:
    """Tensors that no rule of the family knows; leaving them out in silence would make another model."""
    names = tuple(names)
    return SourceError(
        f"tensors that the {family} family does not know: {_some(names)}",
        hint="the checkpoint is not what its config.json says, or carries an adapter; merge or remove it",
    )


def unsupported_dtype_error(name: str, dtype: str) -> SourceError:
    """A tensor is stored in a type that cannot be converted faithfully."""
    return SourceError(
        f"tensor {name} is stored as {dtype}, not as F64, F32, F16 or BF16",
        hint="use the original checkpoint, not a quantized one",
    )


NO_WAY = "llama.cpp has no such tokenizer, and its own script does not convert it either"


class UnknownPreTokenizer(SourceError):
    """tokenizer.json splits text in a way that no known name stands for.

    ``nearest`` is the name of a similar way, empty if there cannot be a right one.
    """

    def __init__(self, found: str, nearest: str) -> None:
        hint = (
            f"the nearest known one is {nearest}; if llama.cpp splits text so, --pre-tokenizer {nearest} says it, "
            "and a wrong one makes the model answer worse in silence"
        )
        super().__init__(f"unknown BPE pre-tokenizer: {found}", hint=hint if nearest else NO_WAY)
        self.found = found
        self.nearest = nearest


class NoSuchPreTokenizer(SourceError):
    """The name of a pre-tokenizer that the user gave is none that llama.cpp knows."""

    code = ExitCode.USAGE

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        from difflib import get_close_matches  # noqa: PLC0415 - not on the warm path

        near = get_close_matches(name, self.known, n=1, cutoff=0)
        super().__init__(
            f"llama.cpp knows no pre-tokenizer of that name: {name}",
            hint=f"the nearest is {', '.join(near)}; all: {', '.join(self.known)}",
        )


class BadVocabulary(SourceError):
    """The tokenizer's files contradict each other or the weights."""

    def __init__(self, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"tokenizer: {problem}", hint=hint or "fetch the tokenizer's files again")
        self.problem = problem


class TooManyTokens(BadVocabulary):
    """The tokenizer has tokens for which the embedding has no row."""

    def __init__(self, tokens: int, room: int) -> None:
        super().__init__(
            f"it has {tokens} tokens, the embedding has room for {room}",
            hint="tokens were added without resizing the model, or the tokenizer is another model's",
        )
        self.tokens = tokens
        self.room = room
