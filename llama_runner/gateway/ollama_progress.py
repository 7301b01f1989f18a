"""Events of the pipeline as statuses of Ollama's pull. Pure."""

from __future__ import annotations

from typing import Any

from llama_runner.core.digest import short_hash
from llama_runner.core.printable_text import printable

Json = dict[str, Any]


class ProgressTranslator:
    """Events of the pipeline as statuses of Ollama's API."""

    def __init__(self) -> None:
        self._digest = ""

    def statuses(self, event: Json) -> list[Json]:
        """Return the statuses for an event, often none."""
        kind, step = event.get("event"), str(event.get("step", ""))
        if kind == "chosen":
            self._digest = str(event.get("digest") or f"sha256:{event.get('commit', '')}")
            return []
        if kind == "step_progress":
            return [self._progress(step, event)]
        if kind == "step_started":
            return [] if step == "download" else [{"status": f"running {printable(step)}"}]
        if kind == "step_finished" and step == "download":
            return [{"status": "verifying sha256 digest"}]
        if kind in ("noticed", "warned", "lock_waiting"):
            return [{"status": printable(str(event.get("text") or f"waiting for {event.get('holder')}"), limit=400)}]
        return []

    def _progress(self, step: str, event: Json) -> Json:
        total, done = int(event.get("total") or 0), int(event.get("done") or 0)
        counted = {"total": total, "completed": min(done, total)}
        if step == "download" and self._digest:
            return {"status": f"pulling {short_hash(self._digest, 12)}", "digest": self._digest, **counted}
        return {"status": f"running {printable(step)}", **counted}
