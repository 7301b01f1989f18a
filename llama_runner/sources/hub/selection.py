"""Which files of a repository are meant. Pure, and made anew at each run: the same listing gives the same choice.

An exact wish is fulfilled or an error that lists what there is. Files that fit equally are an error too, never a
silent choice.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from llama_runner.core.errors import SourceError
from llama_runner.core.value import Value
from llama_runner.sources.hub import listing
from llama_runner.sources.hub.listing import Variant
from llama_runner.sources.local import READ_BY_CONVERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llama_runner.sources.hub.pins import RemoteFile

NEAREST = (
    *("q4_k_m", "q4_k_l", "q4_k_xl", "mxfp4_moe", "q4_k_s", "iq4_nl", "iq4_nl_xl", "iq4_xs", "q4_1", "q4_0", "nvfp4"),
    *("q5_k_m", "q5_k_l", "q5_k_xl", "q5_k_s", "q5_1", "q5_0"),
    *("q6_k", "q6_k_l", "q6_k_xl", "q8_0", "q8_0_l", "q8_k_xl"),
    *("q3_k_xl", "q3_k_l", "q3_k_m", "iq3_m", "iq3_s", "q3_k_s", "iq3_xs", "iq3_xxs"),
    *("bf16", "f16", "f32"),
    *("q2_k_xl", "q2_k_l", "q2_k", "iq2_m", "iq2_s", "q2_k_s", "iq2_xs", "iq2_xxs"),
    *("tq2_0", "q2_0", "iq1_m", "iq1_s", "tq1_0", "q1_0", "q4_0_8_8", "q4_0_4_8", "q4_0_4_4"),
)
"""What is taken when nothing is asked for, the first that is there: q4_k_m and its like, then what is better and larger
up to 8 bits, then 3 bits, then 16, and last what loses most. The repacked q4_0 cannot be loaded any more."""

PROJECTORS = ("f16", "bf16", "q8_0", "f32")
"""Which projector comes along: they are small, and f16 is what most are tested with."""


class Wish(Value):
    """What the user said about the files."""

    quantization: str | None = None
    filename: str | None = None
    pattern: str | None = None
    max_size: int | None = None
    """Bytes of model and projector."""
    projector: bool = True


class Choice(Value):
    """What is meant."""

    model: Variant
    projector: RemoteFile | None
    why: str
    """A clause for people."""


class NoSuchQuantization(SourceError):
    """No GGUF file has the quantization that was asked for."""

    def __init__(self, quantization: str, offered: Sequence[Variant]) -> None:
        self.quantization, self.offered = quantization, tuple(offered)
        super().__init__(f"no GGUF file there is {quantization}\n{table(offered)}", hint="ask for one of these")


class NoSuchFile(SourceError):
    """No GGUF file has the name that was asked for."""

    def __init__(self, name: str, offered: Sequence[Variant]) -> None:
        self.name, self.offered = name, tuple(offered)
        super().__init__(f"no GGUF file there is called {name}\n{table(offered)}", hint="ask for one of these")


class SeveralFit(SourceError):
    """More than one file is what was asked for."""

    def __init__(self, fitting: Sequence[Variant]) -> None:
        self.fitting = tuple(fitting)
        super().__init__(
            f"{len(fitting)} models there fit equally\n{table(fitting)}", hint="say which one with --filename NAME"
        )


class NothingFits(SourceError):
    """No file is as small as was asked for."""

    def __init__(self, limit: int, offered: Sequence[Variant]) -> None:
        self.limit, self.offered = limit, tuple(offered)
        super().__init__(
            f"nothing there fits into {_size(limit)}\n{table(offered)}",
            hint="allow more with --max-size, or choose a smaller model",
        )


class IncompleteShards(SourceError):
    """The model is in several files, and the repository lacks some."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        missing = ", ".join(variant.missing[:4]) + (", …" if len(variant.missing) > 4 else "")  # noqa: PLR2004
        super().__init__(
            f"{variant.name} is one of {len(variant.files) + len(variant.missing)} shards, and the repository lacks "
            f"{missing}",
            hint="choose another quantization or another revision",
        )


def has_models(files: Iterable[RemoteFile]) -> bool:
    """Whether there is any GGUF model."""
    return bool(_models(files))


def select(files: Iterable[RemoteFile], wish: Wish) -> Choice:
    """Return the model that is meant, and its projector; a ``SourceError`` where that is not clear."""
    offered = list(listing.variants(files))
    models = [variant for variant in offered if variant.role == "model"]
    fitting, why = _asked_for(offered, models, wish)
    if wish.max_size is not None:
        fitting = [one for one in fitting if _whole_size(one, offered, wish) <= wish.max_size]
        if not fitting:
            raise NothingFits(wish.max_size, models)
        if not why:
            fitting.sort(key=lambda one: (_rank(one, listing.KNOWN), one.variant))
            why = f"the best within {_size(wish.max_size)}"
            best = fitting[0]
            fitting = [one for one in fitting if _rank(one, listing.KNOWN) == _rank(best, listing.KNOWN)]
    elif not why or len({one.quantization for one in fitting}) > 1:
        bases = {one.base for one in fitting}
        if len(bases) > 1:
            raise SeveralFit(fitting)
        rank = min(_rank(one, NEAREST) for one in fitting)
        fitting = [one for one in fitting if _rank(one, NEAREST) == rank]
        why = why or _why_nearest(fitting[0], models)
    chosen = _the_one(fitting)
    if chosen.missing:
        raise IncompleteShards(chosen)
    return Choice(chosen, _projector(chosen, offered) if wish.projector else None, why)


def weights_for_conversion(files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...] | None:
    """Return exactly what conversion reads, sorted by name; None without safetensors that are a model's.

    The weights are the shards ``model-00001-of-0000N.safetensors`` or else ``model*.safetensors``; never pickles,
    Python files, or what lies in ``original/``.
    """
    names = {file.name for file in files}
    weights = [file for file in files if "/" not in file.name and fnmatchcase(file.name, "model*.safetensors")]
    if not weights:
        return None
    if "model.safetensors.index.json" in names:
        sharded = [file for file in weights if fnmatchcase(file.name, "model-?????-of-?????.safetensors")]
        weights = sharded or weights
        for stem, count in {file.name.rpartition("-of-")[::2] for file in sharded}:
            shards = Variant("", "", "", "model", tuple(sharded), _absent(stem, count, names))
            if shards.missing:
                raise IncompleteShards(shards)
    elif "model.safetensors" in names:
        weights = [file for file in weights if file.name == "model.safetensors"]
    small = [
        file
        for file in files
        if not file.name.endswith(".safetensors")
        and any(_matches(file.name, pattern) for pattern in READ_BY_CONVERSION)
    ]
    return tuple(sorted([*weights, *small], key=lambda file: file.name))


def table(offered: Sequence[Variant]) -> str:
    """Return what there is, a line each: quantization, size, file."""
    rows = [(one.label or "?", _size(one.size), one.name) for one in offered]
    width = max((len(label) for label, _, _ in rows), default=0)
    return "\n".join(f"  {label:<{width}}  {size:>9}  {name}" for label, size, name in rows)


def _models(files: Iterable[RemoteFile]) -> list[Variant]:
    return [variant for variant in listing.variants(files) if variant.role == "model"]


def _asked_for(offered: list[Variant], models: list[Variant], wish: Wish) -> tuple[list[Variant], str]:
    """Return the models that the exact wishes leave, and why; an empty reason when there was no such wish."""
    fitting, why = models, ""
    if wish.filename is not None:
        fitting, why = _called(wish.filename, offered), "asked for by name"
        if not fitting:
            raise NoSuchFile(wish.filename, models)
    if wish.pattern is not None:
        pattern = wish.pattern.lower()
        fitting = [one for one in fitting if any(_fits(file.name.lower(), pattern) for file in one.files)]
        why = f"it fits {wish.pattern}"
        if not fitting:
            raise NoSuchFile(wish.pattern, models)
    if wish.quantization is not None:
        fitting = _quantized(wish.quantization, fitting)
        why = "asked for"
        if not fitting:
            raise NoSuchQuantization(wish.quantization, models)
    return fitting, why


def _called(name: str, offered: list[Variant]) -> list[Variant]:
    exact = [one for one in offered if any(file.name == name for file in (*one.files, *_named(one.missing)))]
    return exact or [one for one in offered if any(file.name.rpartition("/")[2] == name for file in one.files)]


def _named(names: tuple[str, ...]) -> list[RemoteFile]:
    from llama_runner.sources.hub.pins import RemoteFile  # noqa: PLC0415 - for what is missing only

    return [RemoteFile(name, 0) for name in names]


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[2], pattern)


def _quantized(wanted: str, models: list[Variant]) -> list[Variant]:
    """Return the models of a quantization; the plain one where there are others made another way."""
    parsed = listing.quantization_named(wanted)
    if parsed is None:
        return []
    variant, quantization = parsed
    found = [one for one in models if one.quantization == quantization]
    if variant:
        return [one for one in found if one.variant == variant]
    return [one for one in found if not one.variant] or found


def _the_one(fitting: list[Variant]) -> Variant:
    if len(fitting) > 1:
        fitting = [one for one in fitting if not one.variant] or fitting
    digests = {tuple(file.sha256 for file in one.files) for one in fitting}
    same = len(digests) == 1 and None not in next(iter(digests))
    if len(fitting) > 1 and not same:
        raise SeveralFit(fitting)
    return fitting[0]


def _rank(one: Variant, order: tuple[str, ...]) -> int:
    return order.index(one.quantization) if one.quantization in order else len(order)


def _why_nearest(one: Variant, models: list[Variant]) -> str:
    if len(models) == 1:
        return "the only one there"
    return "the default" if one.quantization == NEAREST[0] else f"the nearest to {NEAREST[0]} that is there"


def _projector(model: Variant, offered: list[Variant]) -> RemoteFile | None:
    """Return the projector of a model: of those whose name has most in common with its own, by type."""
    found = [one for one in offered if one.role == "projector" and not one.missing]
    order = {name: rank for rank, name in enumerate(PROJECTORS)}

    def closeness(one: Variant) -> tuple[int, int, str]:
        words = set(model.base.replace("/", "-").split("-"))
        shared = len(words & set(one.base.replace("/", "-").split("-")))
        return (-shared, order.get(one.quantization, len(order)), one.name)

    return min(found, key=closeness).files[0] if found else None


def _whole_size(one: Variant, offered: list[Variant], wish: Wish) -> int:
    projector = _projector(one, offered) if wish.projector else None
    return one.size + (0 if projector is None else projector.size)


def _absent(stem: str, count: str, names: set[str]) -> tuple[str, ...]:
    prefix, total = stem.rpartition("-")[0], int(count.partition(".")[0])
    shards = (f"{prefix}-{index:05}-of-{total:05}.safetensors" for index in range(1, total + 1))
    return tuple(name for name in shards if name not in names)


def _matches(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern in which ``*`` stands for no slash."""
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def _size(count: int) -> str:
    value, unit = float(count), 0
    while value >= 1024 and unit < 4:  # noqa: PLR2004
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"
