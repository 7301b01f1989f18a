"""What differs between two configurations, and between a configuration and the servers that run for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from llama_runner.config.config import Config
    from llama_runner.config.prepare_declared_models import Deployment

_ABSENT = object()


class ConfigDifference(Value):
    """One difference."""

    what: str
    """The name of a model, ``gateway`` or ``store``."""
    text: str
    key: str | None = None
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        return f"{self.what}{f'.{self.key}' if self.key else ''}: {self.text}"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**self.__dict__, "before": _plain(self.before), "after": _plain(self.after)}


def file_differences(before: Config, after: Config) -> list[ConfigDifference]:
    """Return what the second configuration changes against the first, all layers of each together."""
    found: list[ConfigDifference] = []
    for name in {**before.models, **after.models}:
        if name not in after.models:
            found.append(ConfigDifference(name, "is declared no longer"))
        elif name not in before.models:
            found.append(ConfigDifference(name, "is declared now"))
        else:
            found += _compared(name, _model_of(before, name), _model_of(after, name))
    for table in ("gateway", "store"):
        found += _compared(table, _table_of(getattr(before, table)), _table_of(getattr(after, table)))
    return found


def running_differences(deployment: Deployment) -> list[ConfigDifference]:
    """Return how the servers that run for a configuration differ from what it declares now."""
    running = {str(about["alias"]): about for about in deployment.running()}
    launches = deployment.plan().launches
    found = []
    for name, spec in launches.items():
        about = running.get(spec.alias)
        if about is None:
            found.append(ConfigDifference(name, "does not run"))
        elif about.get("spec") != spec.digest:
            found.append(ConfigDifference(name, "runs with other options; llama-runner reload starts it anew"))
    declared = {spec.alias for spec in launches.values()}
    gone = (name for name, about in running.items() if name not in declared and about.get("kind") is None)
    return [*found, *(ConfigDifference(name, "runs, and is declared no longer") for name in gone)]


def _model_of(config: Config, name: str) -> dict[str, Any]:
    resolved = config.resolved(name, environment={})
    model = resolved.model
    own: dict[str, Any] = {"source": resolved.source, "aliases": model.aliases}
    own |= {f"variants.{key}": _table_of(each) for key, each in model.variants.items()}
    own |= {f"adapters.{key}": _table_of(each) for key, each in model.adapters.items()}
    return own | {key: each.value for key, each in resolved.settings.items()}


def _table_of(table: Value) -> dict[str, Any]:
    return {key: _table_of(each) if isinstance(each, Value) else each for key, each in table.__dict__.items()}


def _compared(what: str, before: dict[str, Any], after: dict[str, Any]) -> list[ConfigDifference]:
    found = []
    for key in sorted({*before, *after}):
        was, now = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if was != now:
            text = f"{_shown(was)} -> {_shown(now)}"
            found.append(ConfigDifference(what, text, key, *(None if each is _ABSENT else each for each in (was, now))))
    return found


def _shown(value: object) -> str:
    return "not set" if value is _ABSENT else json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:  # noqa: ANN401 - a value for JSON
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
