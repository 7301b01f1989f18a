"""Configurations for the tests of generated files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llama_runner.config.config import Config
from llama_runner.generate.generated_files import Generated, GenerateOptions, Target, generate

Make = Callable[..., Generated]

CONFIG = """
[models."qwen:8b"]
source = "Qwen/Qwen3-8B-GGUF:Q4_K_M"
aliases = ["gpt-4o-mini"]
api_key_file = "keys/qwen"
token_file = "keys/hub"
threads = 4
llama = { parallel = 2 }

[models.tls]
source = "org/model"
host = "0.0.0.0"
tls_cert = "keys/cert.pem"
tls_key = "keys/key.pem"
insecure = true
port = 9000

[models.demo]
source = "demo"
"""


def toml(value: object) -> str:
    """Return a value as TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        escaped = "".join(each if each.isprintable() and each not in '"\\' else f"\\U{ord(each):08x}" for each in value)
        return f'"{escaped}"'
    return str(value).lower()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return a configuration with three models."""
    path = tmp_path / "llama-runner.toml"
    path.write_text(CONFIG)
    return Config.load(path)


@pytest.fixture
def make(config: Config) -> Make:
    """Return a function that generates files for models of which each takes 1 GiB, and 2 GiB for prompts.

    Each has a container of its own, unless the test says otherwise.
    """

    def made(target: Target, *names: str, of: Config = config, **options: Any) -> Generated:
        options.setdefault("per_model", True)
        return generate(target, of, names, GenerateOptions(**options), lambda _resolved: (1 << 30, 2 << 30))

    return made
