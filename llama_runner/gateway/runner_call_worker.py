"""Makes one call of ``Runner`` in a process of its own: ``python -m llama_runner.gateway.runner_call_worker``.

The gateway starts it, so that a call neither blocks nor enlarges the gateway and can be ended at any time. It reads
one line of JSON from standard input, ``{"root", "config", "call", "arguments"}``, and writes one JSON object a line:
the events of the pipeline, and at the end ``{"event": "result", "value"}`` or ``{"event": "failed", "type", "code",
"message", "hint", "tail"}``. When standard input ends, or the gateway does, it stops like on Ctrl-C and keeps what
arrived.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.api import Runner
from llama_runner.core.errors import Interrupted, LlamaRunnerError, UsageError
from llama_runner.core.events import Chosen, Event
from llama_runner.core.sizes import size_text
from llama_runner.gateway.errors import kind_of
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]


def too_large_error(repo: str, size: int, largest: int) -> UsageError:
    """Return the error for a download that exceeds the limit of the configuration."""
    return UsageError(
        f"the files of {repo} have {size_text(size)}, more than the limit of {size_text(largest)}",
        hint="choose a smaller quantization, or raise max_pull in the configuration",
    )


def _download(runner: Runner, given: Json) -> Json:
    [added] = runner.models.add(given["name"], **given["keywords"])
    if added.error is not None:
        raise added.error
    return {"files": [file.to_json() for file in added.files]}


def _remove(runner: Runner, given: Json) -> Json:
    from llama_runner.library.declared_models import PulledByClient  # noqa: PLC0415 - for this call

    call = runner.models.remove if given["apply"] else runner.models.look_at_removal
    try:
        return call(given["name"], force=given["force"]).to_json()
    except PulledByClient:  # checked last; the client ends that with it
        if not given["is_pulled"]:
            raise
        return call(given["name"], force=True).to_json()


def _prepare(runner: Runner, given: Json) -> Json:
    """``extra`` are options for llama-server, which are tried before anything is fetched or made."""
    server = ServerOptions(extra=tuple(given["extra"])) if given.get("extra") else None
    return runner.prepare(given["name"], server=server, **given["keywords"]).to_json()


def _plan(runner: Runner, given: Json) -> Json:
    found = runner.plan(given["name"], **given["keywords"])
    return {**found.to_json(), "graph": found.graph()}


def _why(runner: Runner, given: Json) -> Json:
    return {**runner.why(given["name"]).to_json(), "graph": runner.models.lineage(given["name"])[1].graph()}


CALLS: dict[str, Callable[[Runner, Json], Any]] = {
    "download": _download,
    "prepare": _prepare,
    "programs": lambda runner, given: runner.make_programs(**given).to_json(),
    "updates": lambda runner, given: runner.bins.updates(**given).to_json(),
    "search": lambda runner, given: [found.to_json() for found in runner.search(**given)],
    "recommend": lambda runner, given: runner.recommend(**given).to_json(),
    "doctor": lambda runner, _: runner.doctor().to_json(),
    "show": lambda runner, given: runner.models.show(**given).to_json(),
    "plan": _plan,
    "why": _why,
    "remove": _remove,
}
"""What the gateway may ask for, by name. Each result is JSON."""


class _Output:
    """Writes events as lines; called from several threads."""

    def __init__(self, root: Path, largest: int | None) -> None:
        self._root, self._largest, self._lock = root, largest, threading.Lock()

    def __call__(self, event: Event) -> None:
        value = event.to_json()
        if isinstance(event, Chosen):
            if self._largest is not None and event.bytes > self._largest:
                raise too_large_error(event.repo, event.bytes, self._largest)
            value["digest"] = self._digest(event)
        self.write(value)

    def _digest(self, event: Chosen) -> str | None:
        """Return the published digest of the largest file."""
        from llama_runner.sources.hub.pins import PinStore  # noqa: PLC0415 - loaded by then

        pin = PinStore(layout.pins(self._root / layout.PRIVATE), lambda _: None).read(event.repo).pins.get(event.commit)
        file = None if pin is None else pin.file(event.files[0])
        return None if file is None or file.sha256 is None else str(file.sha256)

    def write(self, value: Json) -> None:
        with self._lock:
            try:
                sys.stdout.write(json.dumps(value, default=str) + "\n")
                sys.stdout.flush()
            except OSError:  # the gateway is gone; the end of standard input ends this process
                sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for the rest of the process


def _stop_with_input() -> None:
    """Interrupt the main thread at the end of standard input."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    """Make one call."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked = json.loads(_first_line())
    threading.Thread(target=_stop_with_input, daemon=True).start()
    arguments = asked["arguments"]
    output = _Output(Path(asked["root"]), arguments.pop("largest", None))
    try:
        runner = Runner(asked["root"], on_event=output, config=asked["config"])
        value = CALLS[asked["call"]](runner, arguments)
    except (Interrupted, KeyboardInterrupt):
        return 130
    except LlamaRunnerError as error:
        told = {"type": kind_of(error), "code": error.code, "message": str(error), "hint": error.hint}
        output.write({"event": "failed", **told, "tail": list(getattr(error, "tail", None) or ())})
        return int(error.code)
    output.write({"event": "result", "value": value})
    return 0


def _first_line() -> bytes:
    """Read standard input to the first line end, and nothing after it."""
    found = b""
    while not found.endswith(b"\n") and (more := os.read(0, 1)):
        found += more
    return found


if __name__ == "__main__":
    sys.exit(main())
