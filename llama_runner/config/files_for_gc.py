"""The configuration files that were used with a root: one small file. ``gc`` keeps what they declare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.config.errors import ConfigError
from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.events import Noticed
from llama_runner.store import layout
from llama_runner.store.gc_files_in_use import known_files, remember_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llama_runner.config.config import Config
    from llama_runner.core.events import Sink


def used_configs(private: Path, sink: Sink, own: Iterable[Config]) -> list[Config]:
    """Return the configurations that were used with this root, but for those in ``own``.

    Raises ``StoreError`` for one that cannot be read; for one that is gone there is a notice.
    """
    from llama_runner.config.config import Config  # noqa: PLC0415 - only with a file

    read, found = {config.path for config in own}, []
    for path in known_files(layout.config_files(private)):
        if path in read:
            continue
        try:
            found.append(Config.load(path))
        except ConfigError as error:
            hint = "mend the file, or remove it"
            raise StoreError(f"what {path} declares is not known: {error}", hint=hint) from None
        except UsageError:
            sink(Noticed("config", f"{path} is gone, so what it declared is not kept because of it"))
    return found


def remember_config(private: Path, config: Config) -> None:
    """Note that a configuration was used with this root; does nothing where the root cannot be written."""
    remember_file(layout.config_files(private), config.path)
