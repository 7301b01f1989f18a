"""An artifact in one file with its digests: the recorded one, and its SHA-256, computed when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.digest import Digest, is_digest, scheme_of
from llama_runner.core.events import StepProgress
from llama_runner.store.digest_cache import hash_file, hash_tree, payload_stamp
from llama_runner.store.errors import as_store_error

if TYPE_CHECKING:
    from llama_runner.core.artifact_record import Record
    from llama_runner.core.digest import Scheme
    from llama_runner.core.step import Place
    from llama_runner.store.artifacts import Store

OTHER = "other_digest"
"""Member of ``made`` of a record: the digest of the same bytes in the other scheme."""


class StoredFile:
    """An artifact in one file."""

    def __init__(self, store: Store, place: Place, record: Record) -> None:
        self._store, self._place, self._record = store, place, record

    def __repr__(self) -> str:
        return f"StoredFile({self.digest!r})"

    @property
    def digest(self) -> str:
        """The recorded digest, ``sha256:…`` or ``b3:…``."""
        return str(self._record.digest)

    @property
    def known_sha256(self) -> str | None:
        """The SHA-256 in hexadecimal digits if the record has it, else None. Reads nothing."""
        known = recorded_digest(self._record, "sha256")
        return None if known is None else known.removeprefix("sha256:")

    def sha256(self) -> str | None:
        """Return the SHA-256 in hexadecimal digits; computed once, and recorded.

        None if the bytes are not those of the record. Raises ``StoreError`` if they cannot be read.
        """
        if self.known_sha256 is None:
            self._record = with_digest(self._store, self._place, self._record, "sha256")
        return self.known_sha256


def recorded_digest(record: Record, scheme: Scheme) -> Digest | None:
    """Return the digest of an artifact in a scheme, if its record has it. Reads nothing."""
    for found in (record.digest, record.made.get(OTHER)):
        if isinstance(found, str) and is_digest(found) and scheme_of(found) == scheme:
            return Digest(found)
    return None


def with_digest(store: Store, place: Place, record: Record, scheme: Scheme, *, remember: bool = True) -> Record:
    """Return the record of an artifact with its digest in a scheme as well; what is computed is recorded.

    Without ``remember`` nothing is written.
    The record is returned as it is if the artifact does not have the recorded bytes. Raises ``StoreError`` if it cannot
    be read.
    """
    if recorded_digest(record, scheme) is not None:
        return record
    path = store.path(place)
    try:
        if store.payload_state(place, record) not in ("present", "restamp"):
            return record
        before = payload_stamp(path)
        if path.is_dir():
            found = hash_tree(path, scheme=scheme)[0]
        else:

            def progress(done: int) -> None:
                store.tell(StepProgress("hash", done, record.bytes, "bytes"))

            found = hash_file(path, on_progress=progress, scheme=scheme)
        if payload_stamp(path) != before:
            return record
    except OSError as error:
        raise as_store_error(error, path) from error
    changed = record.replace(made={**record.made, OTHER: found})
    if remember and store.record(place) == record:  # else another process has changed it
        store.update(place, changed)
    return changed
