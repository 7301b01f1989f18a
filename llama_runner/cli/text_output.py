"""Events, plans and summaries as text for people. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from llama_runner.cli.escape_control_characters import at_end, is_live, joined, terminal_of
from llama_runner.core import events
from llama_runner.core.printable_text import printable, printable_message
from llama_runner.core.sizes import size_text
from llama_runner.request.plan_text import reason_text, why_text
from llama_runner.serving.llama_server.served_task import described, purpose_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.cli.progress_bars import ProgressBars
    from llama_runner.config.prepare_declared_models import DeploymentPlan
    from llama_runner.request.result_types import PlanResult, Prepared
    from llama_runner.serving.running_server import RunningServer
    from llama_runner.serving.server_process import Server
    from llama_runner.status_report import Status

_LINE_EVERY_S = 10.0
_RATE_OVER_S = 10.0
_BAR_AFTER_S = 0.25
_NAMES = 12


_ENDS = (events.StepFinished, events.StepFetched, events.StepSkipped)


def seconds(count: float) -> str:
    """Return a duration for people."""
    if count < 60:  # noqa: PLR2004
        return f"{count:.1f} s"
    return f"{int(count) // 60} min {int(count) % 60} s"


class Printer:
    """A sink that prints. On a terminal each step that runs has a bar; elsewhere a line comes now and then."""

    def __init__(self) -> None:
        self._live = is_live(sys.stderr)
        self._lock = threading.RLock()
        self._bars: ProgressBars | None = None
        self._started: set[str] = set()
        self._last: dict[str, float] = {}
        self._seen: dict[str, list[tuple[float, int]]] = {}
        """When how much of a step was done, lately."""
        at_end(self.close)

    def __call__(self, event: events.Event) -> None:
        """See ``Sink``."""
        with self._lock, suppress(OSError, ValueError, AttributeError):  # a closed stderr does not stop the work
            if isinstance(event, events.StepProgress):
                self._progress(event)
                return
            if isinstance(event, events.StepStarted):
                self._last[event.step] = time.monotonic()
                self._started.add(event.step)
            if self._bars is not None and isinstance(
                event, (events.StepFinished, events.StepFetched, events.StepSkipped)
            ):
                self._bars.close(event.step)
            if self._bars is not None and isinstance(event, events.StepPushed):
                self._bars.close(f"push {event.step}")
            if text := line(event):
                self._say(printable_message(text))

    def close(self) -> None:
        """Remove the bars, and draw no more: what comes next begins on an empty line."""
        with self._lock, suppress(OSError, ValueError, AttributeError):
            self._live = False
            if self._bars is not None:
                self._bars.close_all()

    def _progress(self, event: events.StepProgress) -> None:
        now = time.monotonic()
        if self._live:
            self._draw(event, now)
        elif now - self._last.get(event.step, now) >= _LINE_EVERY_S:
            self._last[event.step] = now
            self._say(self._line(event, now))
        else:
            self._last.setdefault(event.step, now)
            self._rate(event, now)

    def _draw(self, event: events.StepProgress, now: float) -> None:
        if self._bars is None:
            # hashing a source is no step and mostly over at once: nothing is loaded for that
            since = self._last.setdefault(event.step, now)
            if event.done >= event.total or (event.step not in self._started and now - since < _BAR_AFTER_S):
                return
            from llama_runner.cli.progress_bars import ProgressBars  # noqa: PLC0415 - only where work takes its time

            self._bars = ProgressBars(terminal_of(sys.stderr))
        self._bars.show(event)

    def _line(self, event: events.StepProgress, now: float) -> str:
        share = event.done / event.total if event.total else 1.0
        if event.unit == "bytes":
            text = f"{size_text(event.done)} of {size_text(event.total)}{self._rate(event, now)}"
        else:
            text = f"{event.done} of {event.total} {event.unit}"
            if isinstance(event, events.TrainingProgress):
                text += f", loss {event.loss:.4g}"
        return printable(f"{event.step:<9} {share:4.0%}  {text}")

    def _rate(self, event: events.StepProgress, now: float) -> str:
        """Return how fast it goes lately and how long it will take; nothing before that can be told."""
        seen = self._seen.setdefault(event.step, [])
        if seen and event.done < seen[-1][1]:
            seen.clear()  # begun anew
        seen.append((now, event.done))
        while len(seen) > 2 and now - seen[1][0] > _RATE_OVER_S:  # noqa: PLR2004 - two points make a rate
            del seen[0]
        elapsed, got = now - seen[0][0], event.done - seen[0][1]
        if elapsed < 1 or got <= 0:
            return ""
        left = f", {seconds((event.total - event.done) * elapsed / got)} left" if event.done < event.total else ""
        return f"  {size_text(got / elapsed)}/s{left}"

    def _say(self, line: str) -> None:
        if self._bars is not None:
            self._bars.print(line, sys.stderr)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def resolved(of: events.Resolved) -> str:
    """Return what a name means."""
    still = "still " if of.unchanged else ""
    return f"{of.repo} at {of.revision} is {still}commit {of.commit[:12]}"


def drifted(of: events.Drifted) -> str:
    """Return what changed on the Hub, file by file."""
    lines = [f"{of.repo} at {of.revision} was {of.old[:12]} and is {of.new[:12]} now"]
    for how, names in (("new", of.added), ("changed", of.changed), ("gone", of.removed)):
        lines += [f"{'':<10}{how:<8}{name}" for name in names[:_NAMES]]
        lines += [f"{'':<10}{how:<8}and {len(names) - _NAMES} more"] if len(names) > _NAMES else []
    return "\n".join(lines)


def chosen(of: events.Chosen) -> str:
    """Return what will be fetched, how much it is, and why."""
    more = f" and {len(of.files) - 1} more" if len(of.files) > 1 else ""
    return f"{of.files[0]}{more}, {size_text(of.bytes)}: {of.why}"


def line(event: events.Event) -> str | None:  # noqa: C901, PLR0912 - a table
    """Return an event as text for people; None for what they need not hear of."""
    match event:
        case events.StepStarted():
            why = dict.fromkeys(reason_text(reason, event.step) for reason in event.reasons)
            return f"{event.step:<9} {'; '.join(why)}"
        case events.StepFinished():
            return f"{event.step:<9} done in {seconds(event.seconds)}: {event.output} ({size_text(event.bytes)})"
        case events.StepFetched():
            where = f"{event.output} ({size_text(event.bytes)})"
            return f"{event.step:<9} fetched from {event.remote} in {seconds(event.seconds)}: {where}"
        case events.StepPushed():
            return f"{event.step:<9} put into {event.remote} in {seconds(event.seconds)} ({size_text(event.sent)} sent)"
        case events.StepUnchanged():
            return f"{event.step:<9} gave the same bytes as before: nothing after it has to run"
        case events.StepSkipped() if event.by_another:
            return f"{event.step:<9} was just made by another process"
        case events.LockWaiting():
            return f"{event.step:<9} waits for {event.holder}"
        case events.Warned():
            return f"warning: {event.text}"
        case events.Noticed():
            return f"note      {event.text}"
        case events.Resolved():
            return f"resolve   {resolved(event)}"
        case events.ServerRestarting():
            how = f"exited with {event.status}" if event.status >= 0 else f"was killed by signal {-event.status}"
            return f"restart   the server {how}; start {event.attempt} of {event.limit} in {event.seconds:g} s"
        case events.Drifted():
            return f"update    {drifted(event)}"
        case events.Chosen():
            return f"choose    {chosen(event)}"
    return None


def print_event(event: events.Event) -> None:
    """Print an event as one line of JSON: the sink of ``run --json``."""
    show(json.dumps(event.to_json()))


def show(text: str, *, err: bool = False) -> None:
    """Print a text, or do nothing where that is not possible: a server does not end because its output is not read."""
    stream = sys.stderr if err else sys.stdout
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        discard(stream)
    except (OSError, ValueError, AttributeError):  # a full disk, a closed stream
        return


def discard(stream: IO[str]) -> None:
    """Send what is still in the buffer of a stream, and what follows, to the null device."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def plan(forecast: PlanResult) -> str:
    """Return what would run and why, a line each, and the launch."""
    lines = []
    for planned in forecast.plan.steps:
        where = "" if planned.place is None else str(planned.place).rstrip("/")
        lines.append(f"{planned.step.kind:<9} {planned.action:<5} {where}")
        lines += [f"{'':<15} {why}" for why in why_text(planned)]
    if forecast.check.get("summary"):
        lines.append(f"checked   {forecast.check['summary']}")
    needs = forecast.plan.estimate
    if needs.fetch or needs.disk:
        lines.append(f"needs     {size_text(needs.fetch)} from the network, {size_text(needs.disk)} of disk")
    if forecast.missing:
        lines.append(f"missing   {', '.join(forecast.missing)}: not here, and the network must not be used")
    lines.append(f"launch    {shlex.join(forecast.spec.argv())}")
    return joined(lines)


def deployment_plan(forecast: DeploymentPlan) -> list[str]:
    """Return what would run for several models, each step once, and the launch of each."""
    lines, every = [], len(forecast.launches)
    for planned in forecast.joint.plan.steps:
        where = "" if planned.place is None else str(planned.place).rstrip("/")
        names = forecast.joint.needed_by(planned.step)
        lines.append(f"{planned.step.kind:<9} {planned.action:<5} {where}")
        lines += [f"{'':<15} for {', '.join(names)}"] if len(names) < every else []
        lines += [f"{'':<15} {why}" for why in why_text(planned)]
    needs = forecast.joint.plan.estimate
    if needs.fetch or needs.disk:
        lines.append(f"needs     {size_text(needs.fetch)} from the network, {size_text(needs.disk)} of disk")
    return [*lines, *(f"launch    {name}: {shlex.join(spec.argv())}" for name, spec in forecast.launches.items())]


def prepared(of: Prepared, sha256: str | None = None) -> str:
    """Return where everything is, and the SHA-256 of the model if it is given."""
    lines = [f"model     {of.model}", *([f"sha256    {sha256}"] if sha256 else []), f"server    {of.server}"]
    text = joined([*lines, f"check     {of.check['summary']}"] if of.check.get("summary") else lines)
    return f"{text}\n{quality(of.quality)}" if of.quality else text


def quality(of: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table of how far models are from what they were made of, by file."""
    wide = max(map(len, of))
    lines = [f"{'quality':<{wide}}  perplexity  of base  KL divergence: mean    median     99 %  same top token"]
    lines += [
        f"{name:<{wide}}  {told['perplexity']:>10.4f}  x{told['perplexity_ratio']:>6.4f}  {told['kld_mean']:>19.5f}"
        f"  {told['kld_median']:>8.5f}  {told['kld_p99']:>7.4f}  {told['same_top_percent']:>12.2f} %"
        for name, told in of.items()
    ]
    return joined([*lines, f"over {max(int(told['tokens']) for told in of.values())} tokens"])


def summary(of: Prepared, server: Server | RunningServer, threads: int, *, stop: str = "Ctrl-C") -> str:
    """Return what is running, once it is ready."""
    facts, spec = of.facts, server.spec
    about = [facts.get("architecture"), facts.get("quantization"), size_text(of.model.stat().st_size)]
    steps = [f"{name} {seconds(of.step_seconds[name])}" for name in of.ran]
    steps += [f"{name} fetched in {seconds(of.step_seconds[name])}" for name in of.fetched]
    steps += [f"{name} skipped" for name in of.skipped]
    context = f"{server.context} tokens"
    if server.trained_context:
        context += f" (the model was trained for {server.trained_context})"
    layers = "" if spec.gpu_layers is None else f", {spec.gpu_layers} layers on the GPU"
    lines = {
        "model": f"{spec.alias}: {', '.join(filter(None, about))}",
        "file": str(of.model),
        "server": f"llama.cpp {of.build.get('version', '')}, {of.build.get('backend', '')}, {threads} threads{layers}",
        "context": context,
        "purpose": described(spec, facts, os.environ) or "",
        "steps": " · ".join(steps),
        "check": of.check.get("summary", ""),
        "log": server.log_name,
        "listening": f"{server.url}   (a web UI; the OpenAI API is at {server.url}/v1)",
    }
    if spec.api_key == "auto":
        lines["API key"] = f"{server.api_key}   (shown this once)"
    lines |= {"try": example(of, server), "stop": stop}
    shown = (f"{name:<9} {value}" for name, value in lines.items() if value or name not in ("purpose", "check"))
    return f"\n{joined(shown)}\n"


def example(of: Prepared, server: Server | RunningServer) -> str:
    """Return a command that talks to the server."""
    body: dict[str, Any]
    kind = purpose_of(server.spec, os.environ).kind
    if kind == "embeddings":
        path, body = "/v1/embeddings", {"input": "what is a step?"}
    elif kind == "rerank":
        path, body = "/v1/rerank", {"query": "what is a step?", "documents": ["a value", "a server"]}
    elif of.facts.get("chat_template"):
        path, body = "/v1/chat/completions", {"messages": [{"role": "user", "content": "what is a step?"}]}
    else:
        path, body = "/v1/completions", {"prompt": "A step is", "max_tokens": 32}
    spec, url = server.spec, server.url
    words = ["curl -s"]
    if spec.socket is not None:
        words, url = [*words, "--unix-socket", shlex.quote(str(spec.socket))], f"http://localhost{spec.api_prefix}"
    if spec.tls_cert is not None:
        words += ["--cacert", shlex.quote(str(spec.tls_cert))]
    words += [url + path, "-H 'Content-Type: application/json'"]
    if server.api_key is not None:
        words.append('-H "Authorization: Bearer $LLAMA_API_KEY"')
    return " ".join([*words, "-d", shlex.quote(json.dumps(body))])


def running(server: dict[str, Any]) -> str:
    """Return what a server does now."""
    if server["state"] == "failed":
        return f"{server['alias']}: {server['failure'].partition(chr(10))[0]}, log {server['log']}"
    told = [f"{server['alias']} at {server['url']}", f"process {server['pid']}", server["state"]]
    told += [server["build"] and f"llama.cpp {server['build']}", server["age_s"] and f"for {age(server['age_s'])}"]
    told += [server["rss"] and f"{size_text(server['rss'])} of memory"]
    told += [server["vram"] and f"VRAM {vram(server['vram'])}"]
    if server["slots"] is not None:
        told.append(f"{server['slots_busy']} of {server['slots']} slots busy")
    if server["tokens_per_second"] is not None:
        told.append(f"{server['tokens_per_second']:.1f} tokens/s")
    return ", ".join(filter(None, told))


def vram(of: Mapping[str, int]) -> str:
    """Return what is held on each GPU; which one is of interest only where there are several."""
    if len(of) == 1:
        return size_text(sum(of.values()))
    return " + ".join(f"{size_text(size)} on {gpu}" for gpu, size in sorted(of.items()))


def age(count: float) -> str:
    """Return how long something has been so, roughly."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if count >= length:
            return f"{count / length:.0f} {unit}"
    return f"{count:.0f} s"


def status(of: Status) -> str:
    """Return what the store holds and what is running."""
    lines = [f"root      {of.root}"]
    for artifact in of.artifacts:
        there = size_text(artifact.bytes) if artifact.present else "only its record is here"
        lines.append(f"{artifact.step:<9} {artifact.path}  ({there})")
    lines += [f"unfinished {name}  ({size_text(count)})" for name, count in of.unfinished.items()]
    if of.sessions["count"]:
        lines.append(f"sessions  {of.sessions['count']}  ({size_text(of.sessions['bytes'])})")
    lines += [f"{'failed' if server['failure'] else 'running':<9} {running(server)}" for server in of.servers]
    if len(lines) == 1:
        lines.append("empty: nothing was made here yet")
    return joined(lines)
