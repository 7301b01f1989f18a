"""``Adapters``: the trained LoRA adapters of one root. ``Runner.adapters`` is one."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Place
from llama_runner.request.check_method_arguments import public_method
from llama_runner.request.copy_to_output import OutputNotWritable
from llama_runner.store import layout, process_locks
from llama_runner.store.removal import remove
from llama_runner.system.files import read_json
from llama_runner.training.adapter_versions import (
    FILES,
    History,
    Version,
    changing,
    check_name,
    histories,
    known_history,
    read_history,
    split_reference,
)

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Unpack

    from llama_runner.core.events import Sink
    from llama_runner.library.ask_with_and_without_adapter import AdapterTest
    from llama_runner.library.export_adapter_to_git import Commit
    from llama_runner.request.remote_stores import Opened
    from llama_runner.request.result_types import ModelFile
    from llama_runner.request.train_adapter import AdapterTraining, BaseKeywords, TrainedAdapter, TrainingDevice
    from llama_runner.store.artifacts import Store
    from llama_runner.training.options import TrainingKeywords


class Unfinished(Value):
    """A training that runs now, or was interrupted."""

    name: str
    step: int
    steps: int
    is_running: bool

    def to_json(self) -> dict[str, Any]:
        """Return the object for ``lora status --json``."""
        return dict(vars(self))


class Adapters:
    """Train, list, show, compare, roll back, tag, merge, export, test and remove adapters. Each call looks anew."""

    def __init__(
        self,
        store: Store,
        sink: Sink,
        *,
        lock_timeout: float,
        remotes: Opened,
        make: Callable[..., builtins.list[ModelFile]],
        serve: Callable[..., Any],
    ) -> None:
        """``make`` and ``serve`` are those of ``Runner``."""
        self._store, self._sink, self._lock_timeout, self._remotes = store, sink, lock_timeout, remotes
        self._make, self._serve = make, serve

    @public_method
    def train(
        self,
        base: str | Path | None = None,
        *,
        data: str | Path,
        name: str,
        options: TrainingKeywords | None = None,
        device: TrainingDevice = "auto",
        threads: int | None = None,
        start: str | None = None,
        checkpoint_s: float = 30.0,
        **keywords: Unpack[BaseKeywords],
    ) -> TrainedAdapter:
        """Train an adapter, or return it if the same training is done; it becomes the current version of ``name``.

        ``base`` is a directory of safetensors or a repository. ``data`` is checked before anything is fetched.
        ``device`` is ``cpu``, ``cuda``, or ``auto``: CUDA where there is an NVIDIA GPU. ``threads`` is the number of
        CPU threads, by default that of the cores; another number may give other weights. ``start`` is a version of
        ``name`` whose weights training begins with: base, rank, alpha, dropout and targets are those of that version.
        A checkpoint is written every ``checkpoint_s`` seconds.
        """
        history = read_history(self._store.root, check_name(name)) or History(name)
        begin = None if start is None else history.find(start)
        done = self._training.train(
            base,
            layout.user_path(data),
            name,
            options or {},
            keywords,
            device=device,
            threads=threads,
            start=begin,
            weights_of=None if begin is None else history.made_weights(begin),
            checkpoint_s=checkpoint_s,
        )
        with changing(self._store, name) as change:
            change.history = change.history.with_version(done.version)
            version = change.history.find(None)
        return done.replace(version=version)

    @property
    def _training(self) -> AdapterTraining:
        from llama_runner.request.train_adapter import AdapterTraining  # noqa: PLC0415 - not for what only reads

        return AdapterTraining(self._store, self._sink, lock_timeout=self._lock_timeout, remotes=self._remotes)

    @public_method
    def list(self) -> builtins.list[History]:
        """Return all adapters with their versions, sorted by name."""
        return [*histories(self._store.root)]

    @public_method
    def show(self, adapter: str) -> tuple[History, Version]:
        """Return the history of an adapter, and the version of ``NAME`` or ``NAME@REFERENCE``."""
        name, reference = split_reference(adapter)
        history = known_history(self._store.root, name)
        return history, history.find(reference)

    def path(self, version: Version) -> Path:
        """Return the directory of a version."""
        return self._store.root / version.directory

    @public_method
    def status(self) -> builtins.list[Unfinished]:
        """Return the trainings that run, and those that were interrupted and can go on."""
        from llama_runner.steps.train_adapter import PROGRESS, TrainAdapter  # noqa: PLC0415 - not for other methods

        found = []
        for path in sorted(layout.work(self._store.private).glob(f"{TrainAdapter.kind}-*/{PROGRESS}")):
            with suppress(OSError, ValueError, LookupError, TypeError):
                about = read_json(path)
                key = path.parent.name.partition("-")[2]
                locks = layout.locks(self._store.private).glob(f"{key}*.lock")
                running = any(process_locks.is_held(lock) for lock in locks)
                found.append(Unfinished(str(about["name"]), int(about["step"]), int(about["steps"]), running))
        return found

    @public_method
    def log(self, adapter: str, *, everything: bool = False) -> builtins.list[Version]:
        """Return a version and its ancestors, newest first; with ``everything`` all versions, newest first."""
        history, version = self.show(adapter)
        return [*reversed(history.versions)] if everything else history.log(version)

    @public_method
    def diff(self, first: str, second: str | None = None) -> dict[str, tuple[Any, Any]]:
        """Return what differs between two versions, by name; ``second`` is by default the parent of ``first``."""
        history, one = self.show(first)
        if second is None:
            if one.parent is None:
                raise UsageError(f"{one.id} of {history.name} has no parent", hint="name two versions")
            other = history.find(one.parent)
        else:
            other = self.show(second if "@" in second else f"{history.name}@{second}")[1]
        before, after = _flat(other), _flat(one)
        names = dict.fromkeys((*before, *after))
        return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}

    @public_method
    def rollback(self, adapter: str) -> History:
        """Make another version the current one: that of ``NAME@REFERENCE``, or of ``NAME`` the parent."""
        name, reference = split_reference(adapter)
        known_history(self._store.root, name)
        with changing(self._store, name) as change:
            change.history = change.history.rolled_back(reference)
            return change.history

    @public_method
    def tag(self, adapter: str, tag: str, *, remove: bool = False) -> History:
        """Give a version another name, or remove that name."""
        name, reference = split_reference(adapter)
        known_history(self._store.root, name)
        with changing(self._store, name) as change:
            change.history = change.history.without_tag(tag) if remove else change.history.tagged(tag, reference)
            return change.history

    @public_method
    def branch(self, name: str, branch: str, *, create: bool = False) -> History:
        """Make another branch the current one; with ``create`` a new one, which begins at the current version."""
        known_history(self._store.root, name)
        with changing(self._store, name) as change:
            change.history = change.history.on_branch(branch, make=create)
            return change.history

    @public_method
    def remove(self, adapter: str) -> builtins.list[str]:
        """Delete one version (``NAME@REFERENCE``), or an adapter with all of them; return their directories."""
        name, reference = split_reference(adapter)
        known_history(self._store.root, name)
        with changing(self._store, name) as change:
            if reference is None:
                gone, left = change.history.versions, History(name)
            else:
                version = change.history.find(reference)
                gone, left = (version,), change.history.without(version)
            for version in gone:
                self._delete(version)
            change.history = left
        return [version.directory for version in gone]

    def _delete(self, version: Version) -> None:
        """Delete the files of a version. A server that uses it reads the GGUF file that was made of them."""
        place = Place(version.directory)
        if (record := self._store.record(place)) is not None:
            remove(self._store, place, record, keep=None)
        else:
            shutil.rmtree(self._store.path(place), ignore_errors=True)

    @public_method
    def export(self, adapter: str, output: str | Path) -> Path:
        """Copy a version as a directory of PEFT, which transformers loads and the Hub takes. Return the directory."""
        _, version = self.show(adapter)
        target = layout.user_path(output).absolute()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UsageError(f"{target} exists and is not an empty directory", hint="choose another --output")
        source = self._whole(version)
        try:
            target.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                shutil.copyfile(source / name, target / name)
        except OSError as error:
            for name in FILES:  # the directory was empty
                with suppress(OSError):
                    (target / name).unlink()
            raise OutputNotWritable(target, error.strerror or str(error)) from error
        return target

    def _whole(self, version: Version) -> Path:
        """Return the directory of a version; ``StoreError`` if files of it are gone."""
        path = self.path(version)
        if missing := [name for name in FILES if not (path / name).is_file()]:
            hint = "the same training makes it again: llama-runner lora train"
            raise StoreError(f"{path / missing[0]} is gone", hint=hint)
        return path

    @public_method
    def merge(
        self, adapter: str, *, quantization: str | None = None, output: str | Path | None = None, offline: bool = False
    ) -> Path | ModelFile:
        """Merge a version into its base; return the directory of safetensors, or with ``quantization`` the GGUF file.

        ``output`` is where a copy of the GGUF file is put.
        """
        _, version = self.show(adapter)
        self._whole(version)
        merged = self._training.merge(version, {"offline": offline})
        if quantization is None:
            if output is not None:
                raise UsageError("--output is for a GGUF file", hint="say in which type with -q TYPE")
            return merged
        return self._make(merged, quantization=quantization, output=output, offline=offline, check=False)[0]

    @public_method
    def test(
        self,
        adapter: str,
        *,
        questions: builtins.list[str] | None = None,
        data: str | Path | None = None,
        most: int = 10,
        tokens: int = 200,
        quantization: str | None = None,
        offline: bool = False,
    ) -> AdapterTest:
        """Ask llama-server the same questions with and without an adapter, at temperature 0.

        ``questions`` are texts; else the first ``most`` of the file ``data``, with their answers. ``tokens`` is the
        greatest length of an answer.
        """
        from llama_runner.library.ask_with_and_without_adapter import ask, questions_of  # noqa: PLC0415 - starts a server

        _, version = self.show(adapter)
        path = self._whole(version)
        asked = questions_of(questions, None if data is None else layout.user_path(data), most)
        start = self._serve
        return ask(start, str(version.base["source"]), path, asked, tokens, quantization=quantization, offline=offline)

    def check_repository(self, repository: str | Path) -> None:
        """Raise what ``commit`` would raise of the repository: no git, a directory with other files."""
        from llama_runner.library.export_adapter_to_git import check_repository  # noqa: PLC0415 - runs git

        check_repository(layout.user_path(repository))

    @public_method
    def commit(self, name: str, repository: str | Path) -> builtins.list[Commit]:
        """Write the versions of an adapter into a git repository, one commit each, with its branches and tags.

        The repository is made if it is not there. The weights are pointers of git LFS, with their digest and size, and
        the weights themselves are put among the objects of git LFS. The same versions give the same commits.
        """
        from llama_runner.library.export_adapter_to_git import write_repository  # noqa: PLC0415 - runs git

        return write_repository(self._store.root, known_history(self._store.root, name), layout.user_path(repository))


def _flat(version: Version) -> dict[str, Any]:
    """Return the facts of a version by dotted names."""
    found: dict[str, Any] = {"digest": version.digest}
    for part in ("base", "data", "options", "metrics"):
        found |= {f"{part}.{name}": value for name, value in getattr(version, part).items() if name != "source"}
    return found
