"""The remote store at one address: looks up, fetches and pushes artifacts. Implements ``core.remote_store``.

A failure is a warning, once for each kind. Each operation has a time limit; after a failure that the next operation
would have too, such as a server that cannot be reached, the store is not asked for some minutes.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from llama_runner.core.artifact_record import InvalidRecord
from llama_runner.core.digest import canonical_json, is_tree_digest, scheme_of
from llama_runner.core.errors import NoBlake3
from llama_runner.core.events import Sink, Warned
from llama_runner.core.remote_store import RemoteArtifact, RemoteLost
from llama_runner.remote import manifest
from llama_runner.remote.failures import RemoteFailed, failure_of
from llama_runner.remote.receive import receive_file
from llama_runner.remote.send import NotSendable, Sender
from llama_runner.remote.time_limit import Operation
from llama_runner.system import hardware
from llama_runner.system.hashing import has_blake3

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.digest import Key
    from llama_runner.core.step import Place, Step
    from llama_runner.core.step_interfaces import Workspace
    from llama_runner.remote.transports import Transport

Result = TypeVar("Result")

LOOK_UP_S = 20.0
"""Maximum seconds for a small object."""
PART_S = 90.0
"""Maximum seconds for a part of 16 MiB: slower than 180 KiB/s is of no use."""
GIVEN_UP_S = 300.0
"""Seconds for which a store that failed is not asked, in a process that continues."""
_TRIES = 4
PAUSE_S = 0.5
"""Seconds before the second try, for servers that are busy; doubled before each further one."""
_LASTING = frozenset({"unreachable", "slow", "denied", "failed"})
"""Failures after which the store is not asked for some minutes."""
_LARGEST_HINT = 64 << 10


class SharedStore:
    """See ``core.remote_store.RemoteStore``."""

    def __init__(
        self,
        name: str,
        opened: Callable[[], Transport],
        sink: Sink,
        *,
        pushes: bool,
        reads: bool = True,
        look_up_s: float = LOOK_UP_S,
        part_s: float = PART_S,
    ) -> None:
        """``name`` is the address; ``opened`` returns its transport and is called with the first operation.

        Without ``reads`` nothing is looked up, and nothing pushed.
        """
        self.name, self.pushes = name, pushes
        self._opened, self._sink = opened, sink
        self._transport: Transport | None = None
        self._lock = threading.Lock()
        self._look_up_s, self._part_s = look_up_s, part_s
        self._warned: set[str] = set()
        self._rejected: set[str] = set()
        self._used = reads
        self._reads_from = self._writes_from = 0.0
        """The monotonic times from which the store is asked again."""

    def find(self, step: Step, key: Key, place: Place) -> RemoteArtifact | None:
        """See ``RemoteStore``."""
        if not self._is_read or key in self._rejected:
            return None
        try:
            found = self._read_manifest(step, key, place)
        except RemoteFailed as failure:
            self._warn(failure, "read")
            return None
        except InvalidRecord as error:
            self._rejected.add(key)
            self._warn(RemoteFailed("damaged", f"the record of {step.kind} is not used: {error}"), "read")
            return None
        if found is not None and found.has_bytes and not self._is_usable(found.record, step):
            return found.replace(files=())
        return found

    def _is_usable(self, record: Record, step: Step) -> bool:
        """Whether the bytes of an artifact can be checked and used on this machine."""
        if scheme_of(record.digest) == "b3" and not has_blake3():
            self._tell("blake3", f"{step.kind} has a BLAKE3, and the package blake3 is not installed; it is made here")
            return False
        return self._runs_here(record.facts.get("libc"), step)

    @property
    def _is_read(self) -> bool:
        return self._used and time.monotonic() >= self._reads_from

    @property
    def _is_written(self) -> bool:
        return self._used and self.pushes and time.monotonic() >= self._writes_from

    def _read_manifest(self, step: Step, key: Key, place: Place) -> RemoteArtifact | None:
        content = self._call(
            lambda transport: transport.read(manifest.manifest_name(key), manifest.LARGEST_MANIFEST), self._look_up_s
        )
        if content is None:
            return None
        return manifest.parse_manifest(content, key, is_tree=place.is_tree, pinned=step.expected_digest)

    def _runs_here(self, libc: object, step: Step) -> bool:
        """Whether programs that were linked with this C library find theirs on this machine."""
        if not isinstance(libc, str):
            return True
        here = hardware.libc_version() or "another C library"
        (name, needed), (name_here, version) = _version(libc), _version(here)
        if name == name_here and needed <= version:
            return True
        self._tell("machine", f"{step.kind} was made with {libc[:40]}, and this machine has {here}; it is made here")
        return False

    def fetch(self, found: RemoteArtifact, workspace: Workspace) -> None:
        """See ``RemoteStore``."""
        unfinished = workspace.work / ".remote"
        total, done = found.record.bytes, 0

        def read(part: str) -> Operation[bytes | None]:
            return self._start(lambda transport: transport.read(manifest.part_name(part), found.part_bytes))

        def wait(operation: Operation[bytes | None], part: str) -> bytes:
            content = self._wait(operation, read, part, workspace.check_cancelled)
            if content is None:
                raise RemoteFailed("damaged", f"part {part[:12]} is missing")
            return content

        try:
            for index, file in enumerate(found.files):
                target = workspace.out / file.path if file.path else workspace.target
                target.parent.mkdir(parents=True, exist_ok=True)
                if file.kind == "l":
                    target.symlink_to(file.target)
                    continue
                unfinished.mkdir(exist_ok=True)
                partial = unfinished / f"{index}-{str(file.digest)[-16:]}"
                receive_file(
                    file,
                    partial,
                    found.part_bytes,
                    read,
                    wait,
                    lambda count, before=done: workspace.progress(before + count, total, "bytes"),  # type: ignore[misc]
                )
                partial.replace(target)
                if file.kind == "x":
                    target.chmod(0o755)
                else:
                    assert file.digest is not None
                    workspace.add_digest(file.path or target.name, file.digest)
                done += file.bytes
        except RemoteFailed as failure:
            self._warn(failure, "read", f"; {_shown(found)} is made here")
            self._rejected.add(found.record.key)
            raise RemoteLost from None

    def reject(self, key: Key, why: str) -> NoReturn:
        """See ``RemoteStore``."""
        self._rejected.add(key)
        self._tell("rejected", f"{why}; it is made here")
        raise RemoteLost

    def push(
        self, step: Step, path: Path | None, record: Record, on_progress: Callable[[int, int], None]
    ) -> int | None:
        """See ``RemoteStore``. An artifact that another machine put there stays, also if it has other bytes."""
        if not self._is_written:
            return None
        try:
            if record.key not in self._rejected and self._has(record, with_bytes=path is not None):
                return None
            artifact, sent = RemoteArtifact(record.portable(), (), manifest.PART_BYTES), 0
            if path is not None:
                sender = Sender(self._start_part, self._wait_part, on_progress)
                artifact, sent = sender.send(path, artifact), sender.sent
            content = manifest.format_manifest(artifact)
            name = manifest.manifest_name(record.key)
            self._call(lambda transport: transport.write(name, content), self._part_s)
        except RemoteFailed as failure:
            self._warn(failure, "write")
            return None
        except (NotSendable, NoBlake3, OSError) as error:
            self._tell(f"not sendable {step.kind}", f"{step.kind} is not put there: {error}")
            return None
        return sent + len(content)

    def _has(self, record: Record, *, with_bytes: bool) -> bool:
        """Whether the store has a valid manifest of the key, with the bytes if they are to be sent."""
        name = manifest.manifest_name(record.key)
        content = self._call(lambda transport: transport.read(name, manifest.LARGEST_MANIFEST), self._look_up_s)
        try:
            is_tree = is_tree_digest(record.digest)
            found = None if content is None else manifest.parse_manifest(content, record.key, is_tree=is_tree)
        except InvalidRecord:
            return False
        return found is not None and (found.has_bytes or not with_bytes)

    def _start_part(self, part: str, content: bytes) -> Operation[bool]:
        """Begin to send a part unless it is there; the result is whether it was sent."""
        name = manifest.part_name(part)

        def write(transport: Transport) -> bool:
            if transport.size(name) == len(content):
                return False
            transport.write(name, content)
            return True

        return self._start(write)

    def _wait_part(self, operation: Operation[bool], part: str, content: bytes) -> bool:
        return self._wait(operation, lambda _part: self._start_part(part, content), part)

    def compilers(self, about: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Return the identities of the compilers of the last build that was put there for ``about``; None without one.

        They are a hint from which a machine without compilers computes the key to look for.
        """
        if not self._is_read:
            return None
        name = _hint_name(about)
        try:
            content = self._call(lambda transport: transport.read(name, _LARGEST_HINT), self._look_up_s)
            found = None if content is None else json.loads(content)
        except RemoteFailed as failure:
            self._warn(failure, "read")
            return None
        except (ValueError, RecursionError):
            return None
        match found:
            case {"compilers": [str(), *_] as told} if all(isinstance(each, str) for each in told):
                return tuple(told)
        return None

    def push_compilers(self, about: Mapping[str, Any], identities: tuple[str, ...]) -> None:
        """Put the identities of compilers there, for ``compilers``."""
        if not self._is_written or self.compilers(about) == identities:
            return
        content = json.dumps({"schema": manifest.SCHEMA, "compilers": list(identities)}).encode()
        try:
            self._call(lambda transport: transport.write(_hint_name(about), content), self._look_up_s)
        except RemoteFailed as failure:
            self._warn(failure, "write")

    def _start(self, work: Callable[[Transport], Result]) -> Operation[Result]:
        return Operation.start(lambda: work(self._open()))

    def _open(self) -> Transport:
        with self._lock:
            if self._transport is None:
                self._transport = self._opened()
            return self._transport

    def _call(self, work: Callable[[Transport], Result], seconds: float) -> Result:
        """Run an operation, again after failures that may pass. Raises ``RemoteFailed``."""
        return self._wait(self._start(work), lambda _part: self._start(work), "", seconds=seconds)

    def _wait(
        self,
        operation: Operation[Result],
        again: Callable[[str], Operation[Result]],
        part: str,
        check_cancelled: Callable[[], None] = lambda: None,
        *,
        seconds: float | None = None,
    ) -> Result:
        """Wait for an operation; start it again after failures that may pass. Raises ``RemoteFailed``."""
        seconds = self._part_s if seconds is None else seconds
        for attempt in range(_TRIES):
            if attempt:
                operation = again(part)
            try:
                return operation.result(seconds, check_cancelled)
            except Exception as error:  # noqa: BLE001 - libraries of fsspec raise exceptions of any class
                failure = _raised(error)
                if failure.kind != "failed" or attempt == _TRIES - 1:
                    raise failure from None
                pause = time.monotonic() + PAUSE_S * 2**attempt
                while time.monotonic() < pause:
                    check_cancelled()
                    time.sleep(PAUSE_S / 5)
        raise AssertionError("the last attempt returns or raises")

    def _warn(self, failure: RemoteFailed, doing: str, more: str = "") -> None:
        """Warn of a failure, once for each kind, and ask the store no more if the next operation would fail too."""
        how = {
            "unreachable": "cannot be reached",
            "slow": "is too slow",
            "denied": f"denies to {doing}",
            "full": "is full",
            "damaged": "has a damaged object",
            "failed": f"cannot be {'read' if doing == 'read' else 'written'}",
        }[failure.kind]
        then = more
        later = time.monotonic() + GIVEN_UP_S
        if doing == "write":
            self._writes_from = later
            then = "; nothing more is put there"
        elif failure.kind in _LASTING:
            self._reads_from = self._writes_from = later
            then = "; going on without it"
        self._tell(f"{failure.kind} {doing}", f"it {how}: {failure.why}{then}")

    def _tell(self, kind: str, text: str) -> None:
        with self._lock:
            if kind in self._warned:
                return
            self._warned.add(kind)
        self._sink(Warned("remote_store", f"remote store {self.name}: {text}"))


def _raised(error: Exception) -> RemoteFailed:
    """Return the failure that an exception means; raise what is none, such as ``Interrupted``."""
    from llama_runner.core.errors import LlamaRunnerError  # noqa: PLC0415 - not where nothing fails

    if isinstance(error, LlamaRunnerError):
        raise error
    return error if isinstance(error, RemoteFailed) else failure_of(error)


def _shown(found: RemoteArtifact) -> str:
    return str(found.record.recipe.get("step", "it"))[:40]


def _hint_name(about: Mapping[str, Any]) -> str:
    return f"v1/compilers/{hashlib.sha256(canonical_json(dict(about))).hexdigest()}.json"


def _version(libc: str) -> tuple[str, tuple[int, ...]]:
    """Return name and version of a C library, ``glibc 2.36``, for comparison with another version of the same one."""
    name, _, version = libc.partition(" ")
    return name, tuple(map(int, re.findall(r"\d{1,9}", version)[:3]))
