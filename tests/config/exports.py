"""Configurations to export, and the launches of their models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomlkit

from llama_runner.config.config import Config
from llama_runner.serving.llama_server.launch_spec import ServerSpec, spec_of

PROGRAM = Path("/opt/llama cpp/llama-server")


def config_with(models: dict[str, Any], directory: Path, **tables: Any) -> Config:
    """Return a configuration with models."""
    path = directory / "llama-runner.toml"
    path.write_text(tomlkit.dumps({**tables, "models": models}), encoding="utf-8")
    return Config.load(path, environment={})


def specs_of(config: Config) -> dict[str, ServerSpec | str]:
    """Return what each model would be launched with, as ``Runner.plan`` does for a file that is there."""
    found: dict[str, ServerSpec | str] = {}
    for name in config.models:
        resolved = config.resolved(name)
        adapters = tuple(Path(each) for each in resolved.values.get("lora", ()))
        found[name] = spec_of(
            resolved.server,
            binary=PROGRAM,
            model=Path(str(resolved.source)),
            alias=name,
            trained_context=None,
            cores=2,
            adapters=adapters,
        )
    return found
