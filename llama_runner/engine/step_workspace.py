"""The workspace of a running step: a staging directory, pinned inputs, a log, progress and messages."""

from __future__ import annotations

import errno
import os
import time
from typing import IO, TYPE_CHECKING

from llama_runner.core.digest import Digest, short_hash
from llama_runner.core.events import Noticed, Sink, StepProgress, TrainingProgress, Warned
from llama_runner.core.source import Source
from llama_runner.core.step import Step, all_inputs
from llama_runner.core.url_redaction import redacted
from llama_runner.engine import run_program
from llama_runner.engine.errors import InputVanished
from llama_runner.store import layout, staging
from llama_runner.system.files import open_private_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from llama_runner.core.digest import Hasher, Key, Scheme
    from llama_runner.core.step import Node, Place
    from llama_runner.core.step_interfaces import Sources
    from llama_runner.engine.run_program import Cancellation
    from llama_runner.store.artifacts import Store

_PROGRESS_EVERY_S = 0.1
_LARGE = 64 << 20
"""Outputs of at least this many bytes have a progress of their hashing."""


class StagedWorkspace:
    """The ``Workspace`` of one run of one step, in ``staging/<key>/``. The key's lock must be held.

    Leaving the context removes everything but ``work``. The next holder of the lock removes the directory of a killed
    process. The staging directory is on the same file system as the artifact.
    """

    def __init__(
        self,
        step: Step,
        key: Key,
        place: Place,
        *,
        store: Store,
        sink: Sink,
        cancellation: Cancellation,
        places: Mapping[Node, Place],
        sources: Sources,
        scheme: Scheme | None = None,
        inputs: Mapping[str, Node] | None = None,
        title: str | None = None,
    ) -> None:
        """``inputs`` are the nodes that must be readable; by default all inputs of the step.

        ``scheme`` is how the output is hashed; None: by its size. ``title`` is what events call the step; None: its
        kind.
        """
        self.step, self._title = step, title or step.kind
        self.scheme = scheme
        self.facts: dict[str, object] = {}
        self.digests: dict[str, Digest] = {}
        self._store, self._sink, self._cancellation = store, sink, cancellation
        self._place, self._places, self._sources = place, places, sources
        self._staging = self._home = layout.staging(store.private) / short_hash(key, 16)
        self._work = store.work(step.kind, key)
        self._final = store.path(place)
        date = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
        self.log_path = store.root / layout.log_place(f"{step.kind}-{date}-{os.getpid()}-{short_hash(key, 4)}")
        self._log: IO[bytes] | None = None
        self._nodes = all_inputs(step) if inputs is None else inputs
        self._inputs: dict[str, Path] = {}
        self._read: set[str] = set()
        """Inputs that are read no more."""
        self._progress_at = 0.0

    def __enter__(self) -> Self:
        staging.discard(self._home)
        self._staging = staging.open_directory(self._home, self._final)
        try:
            self.out.mkdir()
            for name, node in self._nodes.items():
                self._inputs[name] = self._pin(name, node)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._log is not None:
            self._log.close()
        staging.discard(self._home)

    def _pin(self, name: str, node: Node) -> Path:
        """Return a path to an input that stays readable even if another process evicts the artifact."""
        if isinstance(node, Source):
            return self._sources.path(node)
        path = self._store.path(self._places[node])
        try:
            if path.is_dir():
                return path
            pinned = self._staging / "inputs" / name / path.name
            pinned.parent.mkdir(parents=True)
            os.link(path, pinned)
        except FileNotFoundError:
            raise InputVanished(self.step.kind, path) from None
        except OSError as error:  # a file system without hard links: use the artifact itself
            if error.errno in (errno.ENOSPC, errno.EROFS):
                raise
            return path
        return pinned

    @property
    def out(self) -> Path:
        """See ``Workspace``."""
        return self._staging / "out"

    @property
    def target(self) -> Path:
        """See ``Workspace``."""
        return self.out / self._place.name if self._place.name else self.out

    @property
    def scratch(self) -> Path:
        """See ``Workspace``."""
        path = self._staging / "tools"
        path.mkdir(exist_ok=True)
        return path

    @property
    def work(self) -> Path:
        """See ``Workspace``."""
        return staging.open_directory(self._work, self._final)

    @property
    def log_name(self) -> str:
        """See ``Workspace``."""
        return self.log_path.relative_to(self._store.root).as_posix()

    def input(self, name: str) -> Path:
        """See ``Workspace``."""
        return self._inputs[name]

    def finish_reading(self, name: str) -> None:
        """See ``Workspace``."""
        self._verify(name)
        self._read.add(name)

    def verify_sources(self) -> None:
        """Raise ``SourceChanged`` if a source has changed that is still read."""
        for name in self._nodes:
            if name not in self._read:
                self._verify(name)

    def _verify(self, name: str) -> None:
        if isinstance(node := self._nodes[name], Source):
            self._sources.verify(node)

    def run_program(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """See ``Workspace``."""
        from llama_runner.system.early_write_back import written_back_early  # noqa: PLC0415 - not on the warm path

        with written_back_early(self.out):
            run_program.run(
                argv,
                env=env,
                cwd=cwd,
                log=self._open_log(),
                log_name=self.log_name,
                on_line=on_line,
                cancellation=self._cancellation,
            )

    def _open_log(self) -> IO[bytes]:
        if self._log is None:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            self._log = open_private_log(self.log_path)
        return self._log

    def progress(self, done: int, total: int, unit: str) -> None:
        """See ``Workspace``."""
        self._progress(self._title, done, total, unit)

    def hash_progress(self, done: int, total: int) -> None:
        """Report the progress of hashing a large output, in bytes."""
        if total >= _LARGE:
            self._progress("hash", done, total, "bytes")

    def _progress(self, what: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if done >= total or now - self._progress_at >= _PROGRESS_EVERY_S:
            self._progress_at = now
            self._sink(StepProgress(what, done, total, unit))

    def training_progress(
        self, done: int, total: int, *, loss: float, rate: float, tokens_s: float, validation_loss: float | None
    ) -> None:
        """See ``Workspace``."""
        self._sink(TrainingProgress(self._title, done, total, "steps", loss, rate, tokens_s, validation_loss))

    def notice(self, what: str, text: str) -> None:
        """See ``Workspace``."""
        self._sink(Noticed(what, redacted(text)))

    def warn(self, what: str, text: str) -> None:
        """See ``Workspace``."""
        self._sink(Warned(what, redacted(text)))

    def add_facts(self, **facts: object) -> None:
        """See ``Workspace``."""
        self.facts.update(facts)

    def new_hasher(self, size: int) -> Hasher:
        """See ``Workspace``."""
        from llama_runner.system.hashing import new_hasher, scheme_for  # noqa: PLC0415 - not on the warm path

        if self.scheme is not None and not self._place.is_tree:
            return new_hasher(self.scheme)
        return new_hasher(scheme_for(size, self.scheme))

    def add_digest(self, name: str, digest: Digest) -> None:
        """See ``Workspace``."""
        self.digests[name] = digest

    def check_cancelled(self) -> None:
        """See ``Workspace``."""
        self._cancellation.check()

    def is_cancelled(self) -> bool:
        """See ``Workspace``."""
        return self._cancellation.is_set()

    def remove_work(self) -> None:
        """Remove the directory ``work``, as the step is done."""
        staging.discard(self._work)
