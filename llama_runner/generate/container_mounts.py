"""Files of the machine that a container needs: where they are in it, and which of them are secrets."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.generate.errors import CannotGenerate
from llama_runner.generate.quoting import check_text
from llama_runner.serving.llama_server.absolute_option_paths import changed_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SECRETS = "/run/secrets"
FILES = "/srv/llama-runner"
"""Below it are files of the machine, read-only."""
_WRITTEN = ("--log-file", "--slot-save-path", "--logits-output-dir")
"""Options of llama-server that name what it writes."""


class Mount(Value):
    """A file or directory of the machine, read-only in the container."""

    source: str
    target: str


class Secret(Value):
    """A secret in a file of the machine; ``target`` is its file in the container."""

    name: str
    source: str
    target: str
    key: str
    """What it is, and its key in a Secret of Kubernetes: ``api-key``, ``hub-token``, ``tls.crt``, ``tls.key``."""
    variable: str | None = None
    """The environment variable that is read instead of the file."""


class ContainerFiles:
    """Collects the files and secrets of one container. ``place`` returns where a file is in it."""

    def __init__(self, name: str, label: str, *, cluster: bool, place: Callable[[PurePath], str] | None = None) -> None:
        """``cluster``: the container has no files of this machine, and secrets are variables where they can be."""
        self._name, self._label, self._cluster = name, label, cluster
        self._place = place
        self._mounts: dict[str, Mount] = {}
        self._secrets: dict[str, Secret] = {}

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What is mounted."""
        return tuple(self._mounts.values())

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What is secret."""
        return tuple(self._secrets.values())

    def file(self, path: str) -> str:
        """Return the path in the container of a file or directory of this machine."""
        if self._cluster:
            raise CannotGenerate(
                f"{self._name!r} needs {path}, which is on this machine only",
                model=self._name,
                hint="name a model on the Hub; what was made of a file here cannot be served from a cluster",
            )
        given = PurePath(check_text(path))
        # the files of a split model stand side by side
        whole = given.parent if re.fullmatch(r".*-\d{5}-of-\d{5}\.gguf", given.name) else given
        mount = self._mounts.get(str(whole))
        if mount is None:
            numbered = f"{FILES}/{self._label}/{len(self._mounts)}/{whole.name or 'files'}"
            mount = Mount(str(whole), numbered if self._place is None else self._place(whole))
            self._mounts[str(whole)] = mount
        return mount.target if whole == given else f"{mount.target}/{given.name}"

    def secret(self, key: str, source: str, variable: str | None = None, target: str | None = None) -> str:
        """Return the path in the container of a secret; in a cluster it is in the variable, if there is one."""
        name = f"{self._label}-{key.replace('.', '-')}"
        target = target or f"{SECRETS}/{name}"
        self._secrets[name] = Secret(name, check_text(source), target, key, variable if self._cluster else None)
        return target

    def in_options(self, words: Iterable[str]) -> tuple[str, ...]:
        """Return options of llama-server with the paths in the container."""

        def changed(option: str, path: str) -> str:
            if option in _WRITTEN:
                raise CannotGenerate(
                    f"{self._name!r} has {option} {path}, a path of this machine",
                    model=self._name,
                    hint=f"leave {option} out; the container has only its store and /tmp to write to",
                )
            return self.file(path) if PurePath(path).is_absolute() else path

        return changed_paths(words, changed)
