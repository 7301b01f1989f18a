"""Small files of a model directory, each read once, with a typed error for each problem.

The only module that opens config.json; others get a `ModelDirectory`, or its `config`. It is on the warm path, so
errors are imported where they are raised.

Weights are not read here. The directory's own name is not used: the name for the metadata is given, since a download
may be staged under any name.
"""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

from llama_runner.system.files import LARGEST_JSON, read_bounded

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.errors import SourceError

CONFIG = "config.json"
LARGEST_VOCABULARY = 512 << 20
_VOCABULARY = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "tekken.json")


def limit_of(name: str) -> int:
    """Return the maximum size of a file of this name, in bytes."""
    return LARGEST_VOCABULARY if name in _VOCABULARY else LARGEST_JSON


class ModelDirectory:
    """Small files of one checkpoint, with a cache.

    ``pre_tokenizer`` is llama.cpp's name for how the tokenizer splits text, where the user says it instead of the
    files.
    """

    def __init__(self, directory: Path, *, pre_tokenizer: str | None = None) -> None:
        if not directory.is_dir():
            from llama_runner.convert.errors import no_such_directory_error  # noqa: PLC0415 - not on the warm path

            raise no_such_directory_error(directory)
        self.directory = directory
        self.pre_tokenizer = pre_tokenizer
        self._read: dict[str, Any] = {}

    @property
    def config(self) -> dict[str, Any]:
        """Contents of config.json; empty if it is absent."""
        return self.optional_object(CONFIG)

    def path(self, name: str) -> Path:
        """Return the path of a file, present or not."""
        return self.directory / name

    def has(self, name: str) -> bool:
        """Return whether the file is present; a broken link counts as absent."""
        try:
            return self.path(name).is_file()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return False
            from llama_runner.convert.errors import reading  # noqa: PLC0415 - not on the warm path

            with reading(self.path(name)):  # a directory that may not be entered
                raise

    def text(self, name: str) -> str:
        """Return a file's text, with line ends converted as in Python's text mode."""
        try:
            text = read_bounded(self.path(name), limit_of(name)).decode("utf-8")
        except OSError:
            from llama_runner.convert.errors import reading  # noqa: PLC0415 - not on the warm path

            with reading(self.path(name)):
                raise
        except UnicodeDecodeError as error:
            why = f"it is not UTF-8 ({error.reason} at byte {error.start})"
            raise unreadable(self.path(name), why) from error
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def object(self, name: str, *, purpose: str) -> dict[str, Any]:
        """Return a JSON object; raises if the file is absent."""
        if not self.has(name):
            from llama_runner.convert.errors import MissingFile  # noqa: PLC0415 - not on the warm path

            raise MissingFile(self.path(name), purpose=purpose)
        return self.optional_object(name)

    def optional_object(self, name: str) -> dict[str, Any]:
        """Return a JSON object; empty if the file is absent."""
        value = self.optional_json(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise unreadable(self.path(name), f"a JSON object is expected, found {type(value).__name__}")
        return value

    def optional_json(self, name: str) -> Any:  # noqa: ANN401 - JSON is anything
        """Return any JSON value; None if the file is absent."""
        if name not in self._read:
            self._read[name] = self._load(name) if self.has(name) else None
        return self._read[name]

    def _load(self, name: str) -> Any:  # noqa: ANN401
        text = self.text(name)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise unreadable(self.path(name), f"it is not JSON ({error})") from error


def unreadable(path: Path, why: str) -> SourceError:
    """Return the error for a file that cannot be used."""
    from llama_runner.convert.errors import UnreadableFile  # noqa: PLC0415 - not on the warm path

    return UnreadableFile(path, why)


def architecture_of(source: ModelDirectory) -> str:
    """Return the first architecture in config.json."""
    names = source.object(CONFIG, purpose="the model's architecture").get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        from llama_runner.convert.errors import BadHyperparameter  # noqa: PLC0415 - not on the warm path

        raise BadHyperparameter("architectures", f"is {names!r}, the name of an architecture is expected")
    return names[0]
