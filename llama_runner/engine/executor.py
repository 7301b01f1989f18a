"""Executes a plan: runs independent steps in parallel, each under the lock of its key.

For each step: lock, decide again (another process may have made it), run in staging, hash, publish, record. What the
remote store has is fetched into staging instead. The first failure and Ctrl-C stop all running steps and their child
processes.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from llama_runner.core.digest import Digest, Key, Scheme, scheme_of, short_hash
from llama_runner.core.errors import Interrupted, LlamaRunnerError, StepError
from llama_runner.core.events import (
    Evicted,
    Sink,
    StepFetched,
    StepFinished,
    StepSkipped,
    StepStarted,
    StepUnchanged,
)
from llama_runner.core.plan import Plan, PlannedStep, Run, Skip
from llama_runner.core.remote_store import RemoteLost
from llama_runner.core.source import Source
from llama_runner.core.step import Place, Resource, Step, all_inputs, inputs, step_key
from llama_runner.engine.disk_space import check_disk_space
from llama_runner.engine.new_record import fetched_record, made_record
from llama_runner.engine.plan_outcome import Outcome, skip_up_to_date
from llama_runner.engine.run_program import Cancellation
from llama_runner.engine.step_workspace import StagedWorkspace
from llama_runner.store import layout, process_locks, staging
from llama_runner.store.digest_cache import hash_file, hash_tree
from llama_runner.store.errors import as_store_error
from llama_runner.system.hashing import scheme_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.remote_store import RemoteArtifact, RemoteStore
    from llama_runner.core.step import Node
    from llama_runner.engine.observer import Observer
    from llama_runner.store.artifacts import Store

_HASH_THREADS = 8
"""Threads that hash a file with BLAKE3, at most; more read no faster."""
MAX_PARALLEL: dict[Resource, int] = {"network": 4, "disk": 2, "compute": 1}
"""How many steps of each resource run in parallel."""


class Executor:
    """Executes one plan."""

    def __init__(
        self,
        store: Store,
        observer: Observer,
        sink: Sink,
        *,
        lock_timeout: float,
        remote: RemoteStore | None = None,
        check_output: Callable[[Step, Digest], None] | None = None,
        wanted_digest: Callable[[Step], Digest | None] = lambda _step: None,
        title: Callable[[Step], str] = lambda step: step.kind,
    ) -> None:
        """``check_output`` raises an error for an output that must not be published; events have the ``title``.

        ``wanted_digest`` returns the digest that an output is compared with, for its scheme.
        """
        self._title = title
        self._check_output, self._wanted_digest = check_output, wanted_digest
        self._store, self._observer, self._sink, self._remote = store, observer, sink, remote
        self._sources, self._lock_timeout = observer.sources, lock_timeout
        self._cancellation = Cancellation()
        self._outcome = Outcome()
        self._finished: queue.SimpleQueue[tuple[PlannedStep, BaseException | None]] = queue.SimpleQueue()

    def execute(self, plan: Plan) -> Outcome:
        """Run the pending steps of a plan and return the outcome of all its steps.

        Raises the error of the first step that fails after the others have stopped, ``Interrupted`` on Ctrl-C, and
        ``RemoteLost`` after the running steps have ended if an artifact could not be fetched.
        """
        self._outcome = skip_up_to_date(plan, self._store, self._sources, self._sink, self._remote)
        for planned in plan.pending:
            for name, above in all_inputs(planned.step).items():
                digest = planned.digests[name]
                if isinstance(above, Source) and digest is not None:
                    self._outcome.digests[above] = digest
        with suppress(OSError):  # the store may be read-only
            self._remove_abandoned()
        waiting = list(plan.pending)
        if not waiting:
            return self._outcome
        try:
            check_disk_space(self._store, plan)
            self._run_pending(waiting, plan)
        except KeyboardInterrupt:
            raise Interrupted from None
        except OSError as error:
            raise as_store_error(error, self._store.root) from error
        return self._outcome

    def _run_pending(self, waiting: list[PlannedStep], plan: Plan) -> None:
        """Start the steps that are ready, wait until one ends, and repeat; stop all on the first failure."""
        running: dict[Step, threading.Thread] = {}
        lost: RemoteLost | None = None
        try:
            while waiting or running:
                for planned in list(waiting):
                    if self._is_ready(planned, waiting, running):
                        waiting.remove(planned)
                        thread = threading.Thread(target=self._run_in_thread, args=(planned, plan), daemon=True)
                        running[planned.step] = thread
                        thread.start()
                planned, failure = self._finished.get()
                running.pop(planned.step).join()
                if isinstance(failure, RemoteLost):
                    lost = failure
                    waiting.clear()  # a new plan makes it here; what runs is not interrupted for that
                elif failure is not None:
                    raise failure
            if lost is not None:
                raise lost
        finally:
            if running:
                self._cancellation.cancel()
                for thread in running.values():  # each removes its staging directory
                    thread.join()

    def _is_ready(
        self, planned: PlannedStep, waiting: list[PlannedStep], running: Mapping[Step, threading.Thread]
    ) -> bool:
        step = planned.step
        if planned.remote is not None:  # it needs no inputs
            return len(running) < MAX_PARALLEL["network"]
        unfinished = {each.step for each in waiting} | set(running)
        if any(above in unfinished for above in all_inputs(step).values()):
            return False
        return sum(other.resource == step.resource for other in running) < MAX_PARALLEL[step.resource]

    def _run_in_thread(self, planned: PlannedStep, plan: Plan) -> None:
        """Make one artifact and put the result, None or the exception, into the queue."""
        try:
            self._make(planned, plan)
        except OSError as error:
            self._finished.put((planned, as_store_error(error, self._store.root)))
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._finished.put((planned, error))
        else:
            self._finished.put((planned, None))

    def _make(self, planned: PlannedStep, plan: Plan) -> None:
        """Lock the key of a step and run the step unless another process has made its artifact."""
        step, outcome = planned.step, self._outcome
        if planned.remote is None:
            digests = {name: outcome.digests[above] for name, above in all_inputs(step).items()}
        else:
            digests = {name: digest for name, digest in planned.digests.items() if digest is not None}
        key = step_key(step, digests)
        upstream = {name: outcome.places[above] for name, above in inputs(step).items() if above in outcome.places}
        place = step.place(key, digests, upstream)
        assert place is not None, f"{step.kind} knows its key but not its place"
        outcome.keys[step], outcome.places[step] = key, place
        with process_locks.hold(
            self._lock_path(key),
            self._title(step),
            self._sink,
            timeout=self._lock_timeout,
            check_cancelled=self._cancellation.check,
        ):
            decision = self._observer.decide_again(step, place, digests, plan.snapshot)
            if isinstance(decision, Skip):
                assert decision.digest is not None
                outcome.digests[step] = decision.digest
                self._sink(StepSkipped(self._title(step), by_another=isinstance(planned.decision, Run)))
                return
            assert isinstance(decision, Run), f"{step.kind}: {decision}"
            if decision.remote is None:
                outcome.digests[step] = self._run(step, key, place, digests, decision)
            else:
                outcome.digests[step] = self._fetch(step, key, place, digests, decision.remote)

    def _run(self, step: Step, key: Key, place: Place, digests: Mapping[str, Digest], decision: Run) -> Digest:
        """Run a step in staging and publish its output. The caller holds the lock of the key."""
        before = self._store.record(place)
        began = time.monotonic()
        with self._workspace(step, key, place, scheme=self._scheme(step, before)) as workspace:
            self._sink(StepStarted(self._title(step), decision.reasons, workspace.log_name))
            step.run(workspace)
            self._cancellation.check()
            workspace.verify_sources()
            digest, size = _digest_output(step, workspace, place)
            if step.expected_digest not in (None, digest):
                raise StepError(
                    f"{step.kind}: the result is {digest}, not the pinned {step.expected_digest}",
                    hint="nothing was kept; run again; if it fails again, the pin or the package index is wrong",
                )
            if self._check_output is not None:
                self._check_output(step, digest)
            seconds = round(time.monotonic() - began, 3)
            log = workspace.log_name if workspace.log_path.exists() else None
            record = made_record(
                step, key, digests, (digest, size), workspace.facts, self._sources, seconds=seconds, log=log
            )
            self._store.publish(place, workspace.target, record)
            workspace.remove_work()
        self._outcome.seconds[step] = seconds
        self._sink(StepFinished(self._title(step), seconds, digest, size, str(place)))
        remade = all(reason.kind == "payload_gone" for reason in decision.reasons)
        if before is not None and before.digest == digest and not remade:
            self._sink(StepUnchanged(self._title(step), digest))
        return digest

    def _fetch(
        self, step: Step, key: Key, place: Place, digests: Mapping[str, Digest], found: RemoteArtifact
    ) -> Digest:
        """Fetch an artifact from the remote store and publish it. The caller holds the lock of the key.

        Raises ``RemoteLost`` if it cannot be fetched, or not be used on this machine.
        """
        assert self._remote is not None, "only a remote store gives remote artifacts"
        began, theirs = time.monotonic(), found.record
        if self._check_output is not None:
            try:
                self._check_output(step, theirs.digest)
            except LlamaRunnerError as error:
                self._remote.reject(key, f"{step.kind} is another one there: {error}")
        with self._workspace(step, key, place, scheme=scheme_of(theirs.digest), inputs={}) as workspace:
            self._remote.fetch(found, workspace)
            try:
                step.check_fetched(workspace)
            except Interrupted:
                raise
            except LlamaRunnerError as error:
                self._remote.reject(key, f"{step.kind} does not work on this machine: {error}")
            output = _digest_output(step, workspace, place)
            if output != (theirs.digest, theirs.bytes):  # a file system without modes or links
                self._remote.reject(key, f"{step.kind} is {output[0]} on this machine, not {theirs.digest}")
            record = fetched_record(
                step,
                key,
                digests,
                theirs,
                {**theirs.facts, **workspace.facts},
                self._sources,
                remote=self._remote.name,
                kept=not step.transient,
            )
            self._store.publish(place, workspace.target, record)
            workspace.remove_work()
        seconds = self._outcome.fetched[step] = round(time.monotonic() - began, 3)
        self._sink(StepFetched(self._title(step), seconds, theirs.digest, theirs.bytes, str(place), self._remote.name))
        return theirs.digest

    def _scheme(self, step: Step, before: Record | None) -> Scheme | None:
        """Return how the output of a step is hashed: as the digest that it is compared with. None: by its size.

        Bytes that were hashed with SHA-256 and are made again have the digest that they had, so that the steps after
        them stay up to date.
        """
        for digest in (step.expected_digest, self._wanted_digest(step)):
            if digest is not None:
                return scheme_of(digest)
        return "sha256" if before is not None and scheme_of(before.digest) == "sha256" else None

    def _workspace(
        self,
        step: Step,
        key: Key,
        place: Place,
        *,
        scheme: Scheme | None,
        inputs: Mapping[str, Node] | None = None,
    ) -> StagedWorkspace:
        return StagedWorkspace(
            step,
            key,
            place,
            store=self._store,
            sink=self._sink,
            cancellation=self._cancellation,
            places=self._outcome.places,
            sources=self._sources,
            scheme=scheme,
            inputs=inputs,
            title=self._title(step),
        )

    def evict_transients(self) -> None:
        """Delete the bytes of intermediates that the user has not asked to keep, after all steps are done."""
        for step, key in self._outcome.keys.items():
            if step.transient and step in self._outcome.digests:
                place = self._outcome.places[step]
                if not self._store.is_evictable(place):
                    continue
                with suppress(OSError), process_locks.try_hold(self._lock_path(key)) as held:
                    if held and (size := self._store.evict(place)):
                        self._sink(Evicted(str(place), size))

    def _lock_path(self, key: Key) -> Path:
        return layout.lock_file(self._store.private, short_hash(key, 16))

    def _remove_abandoned(self) -> None:
        """Remove the staging directories of killed processes; those in use are locked."""
        directory = layout.staging(self._store.private)
        for path in list(directory.iterdir()) if directory.is_dir() else ():
            with process_locks.try_hold(layout.lock_file(self._store.private, path.name)) as held:
                if held:
                    staging.discard(path)


def _digest_output(step: Step, workspace: StagedWorkspace, place: Place) -> tuple[Digest, int]:
    path = workspace.target
    if not path.exists() or (place.is_tree and not any(path.iterdir())):
        raise StepError(f"{step.kind}: ended without writing {place.name or place.directory}")
    threads = min(_HASH_THREADS, os.cpu_count() or 1)
    if place.is_tree:
        return hash_tree(path, workspace.digests, workspace.scheme, threads=threads)
    size = path.stat().st_size
    if place.name in workspace.digests:
        return workspace.digests[place.name], size
    scheme = workspace.scheme or scheme_for(size)
    progress = partial(workspace.hash_progress, total=size)
    return hash_file(path, workspace.is_cancelled, progress, scheme=scheme, threads=threads), size
