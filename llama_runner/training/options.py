"""Options of a training. Numbers with a fraction are kept as text, as no key has floats."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.option_values import unexpected_keyword_error, wrong_value_error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, TypedDict

    Loss = Literal["answers", "all"]

    class TrainingKeywords(TypedDict, total=False):
        """Options of ``Adapters.train``, as a program gives them."""

        rank: int
        alpha: int
        dropout: float
        targets: str | tuple[str, ...]
        epochs: int
        batch: int
        learning_rate: float
        seed: int
        length: int
        loss: Loss
        validation: float
        early_stopping: int
        gradient_checkpointing: bool


ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LEAST_RATE = 1e-12
LOSSES = ("answers", "all")
OF_WEIGHTS = ("rank", "alpha", "dropout", "targets")
"""Options that are decided once, when the weights of an adapter are made."""


class TrainingOptions(Value):
    """What decides the weights of an adapter, beside base, data and the trainer. The defaults are the public ones."""

    rank: int = 16
    alpha: int = 32
    """The adapter is scaled by ``alpha / rank``."""
    dropout: str = "0"
    targets: tuple[str, ...] = ("all",)
    """Names of modules; ``("all",)``: every linear layer but the output."""
    epochs: int = 3
    batch: int = 4
    """Sequences a step."""
    learning_rate: str = "0.0002"
    seed: int = 0
    length: int = 1024
    """Most tokens of a sequence; what is longer is cut."""
    loss: Loss = "answers"
    validation: str = "0"
    """Share of the sequences that is held out."""
    early_stopping: int = 0
    """Epochs without a lower validation loss after which training stops; 0: never."""
    gradient_checkpointing: bool = False

    least: ClassVar = {"rank": 1, "alpha": 1, "epochs": 1, "batch": 1, "seed": 0, "length": 8, "early_stopping": 0}
    most: ClassVar = {"rank": 4096, "alpha": 65536, "epochs": 10**6, "batch": 65536, "seed": 2**32 - 1, "length": 2**20}
    shares: ClassVar = {"dropout": (0.0, 1.0), "validation": (0.0, 1.0), "learning_rate": (0.0, 100.0)}
    """Ranges; the upper limit is not part of them, and a learning rate is not 0."""


def training_options(given: dict[str, Any] | TrainingKeywords) -> TrainingOptions:
    """Return checked options; those that are None or left out have their defaults. Raises ``UsageError``."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in TrainingOptions.fields:
            raise unexpected_keyword_error(name, TrainingOptions.fields)
        if value is not None:
            found[name] = _checked(name, value)
    if "rank" in found and "alpha" not in found:
        found["alpha"] = 2 * found["rank"]
    options = TrainingOptions(**found)
    if options.early_stopping and not float(options.validation):
        raise UsageError(
            "early stopping needs a validation split", hint="hold out a share of the data, such as --validation 0.1"
        )
    return options


def continued_options(
    given: dict[str, Any] | TrainingKeywords, version: str, start: Mapping[str, Any]
) -> TrainingOptions:
    """Return checked options of a training that begins with the weights of a version, which has the options ``start``.

    Rank, alpha, dropout and targets are those of the version. Raises ``UsageError`` where others are given.
    """
    asked = training_options(given)
    options = training_options({**given, **{name: start[name] for name in OF_WEIGHTS if name in start}})
    for name in OF_WEIGHTS:
        kept, other = getattr(options, name), getattr(asked, name)
        if given.get(name) is not None and kept != other and sorted(_words(kept)) != sorted(_words(other)):
            raise UsageError(
                f"{name} is {', '.join(_words(kept))} in {version}, whose weights training begins with; "
                f"got {', '.join(_words(other))}",
                hint=f"leave out {name}, or begin with new weights",
            )
    return options


def _words(value: object) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (str(value),)


def _checked(name: str, value: object) -> Any:  # noqa: ANN401 - of each option's kind
    if name in TrainingOptions.shares:
        return _share(name, value)
    if name == "targets":
        return _targets(value)
    if name == "loss":
        if value not in LOSSES:
            raise wrong_value_error(name, " or ".join(LOSSES), value)
        return value
    if name == "gradient_checkpointing":
        if not isinstance(value, bool):
            raise wrong_value_error(name, "True or False", value)
        return value
    least, most = TrainingOptions.least[name], TrainingOptions.most.get(name, 10**6)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise wrong_value_error(name, f"a whole number from {least} to {most}", value)
    return value


def _share(name: str, value: object) -> str:
    least, most = TrainingOptions.shares[name]
    number = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not least <= number < most or (name == "learning_rate" and number < LEAST_RATE):
        raise wrong_value_error(name, f"a number from {least:g} to less than {most:g}", value)
    return f"{number:.12g}"


def _targets(value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, (tuple, list)) else []
    names = [name.strip() for name in names if isinstance(name, str) and name.strip()]
    if names == ["attention"]:
        return ATTENTION
    if not names or not all(re.fullmatch(r"[A-Za-z0-9_.]+", name) for name in names):
        raise wrong_value_error("targets", "all, attention, or names of modules with commas between them", value)
    return tuple(dict.fromkeys(names))
