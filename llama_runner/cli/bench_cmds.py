"""Commands that measure a server under load, and that look for the options that make it fastest."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from llama_runner.cli import options as shared
from llama_runner.cli.infer_cmds import NOT_SHARED, own_options
from llama_runner.cli.server_words import ServerCommand
from llama_runner.cli.streams import say
from llama_runner.core.errors import LlamaRunnerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llama_runner.api import Runner
    from llama_runner.benchmark.history import Result
    from llama_runner.benchmark.load_generator import Load
    from llama_runner.benchmark.tune import Settings, Tuned
    from llama_runner.client.sync_client import Requests
    from llama_runner.request.results import Prepared
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

_SHOWN = "{:>11}  {:>8}  {:>6}  {:>10}  {:>26}  {:>26}"


class Levels(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """Numbers of clients: ``1,2,4,8``."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """See click."""
        if isinstance(value, tuple):
            return value
        words = value.split(",")
        if not all(re.fullmatch(r"0*[1-9]\d{0,3}", word.strip()) and int(word) <= 1024 for word in words):  # noqa: PLR2004
            self.fail(f"{value!r} is not a list of numbers from 1 to 1024", param, ctx)
        return tuple(int(word) for word in words)


load_options = shared.together(
    click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True, help="Length of each answer."),
    click.option(
        "--requests", type=click.IntRange(1), default=4, show_default=True, metavar="N", help="For each client."
    ),
)


@click.command(cls=ServerCommand)
@shared.store
@shared.model
@shared.compute
@shared.profile
@click.option("--url", help="Measure a server that runs there, with LLAMA_API_KEY if it wants a key.")
@click.option("--concurrency", type=Levels(), default="1,2,4,8", show_default=True, help="Clients at once.")
@load_options
@click.option("--seconds", type=shared.Number(0, 1e9, min_open=True), metavar="S", help="Ask as long as this instead.")
@click.option("--compare", is_flag=True, help="Show what the last result of this model here was.")
@click.option("--raw", is_flag=True, help="Without a server: llama-bench, which gets what stands after --.")
def bench(**given: Any) -> None:
    """Measure a server under load: time to the first token, tokens per second, latency, errors. Keeps the result."""
    if given["raw"]:
        _bench_raw(given)
        return
    from llama_runner.benchmark.load_generator import Load, ask, drive  # noqa: PLC0415
    from llama_runner.benchmark.statistics import comparison, figures  # noqa: PLC0415

    seconds = given["seconds"]
    load = Load(
        max_tokens=given["max_tokens"], requests=given["requests"] if seconds is None else None, seconds=seconds
    )
    runner = _runner(given)
    with _measured(runner, given, load) as (server, result):
        ask(server, load, 0)  # the first request pays for what all others find ready
        for clients in given["concurrency"]:
            result["levels"].append(figures(*_turned(drive(server, load, clients), clients)))
            if not given["as_json"]:
                _show(result["levels"][-1], head=len(result["levels"]) == 1)
    _keep(runner, given, result, lambda before: comparison(result["levels"], before["levels"]))


def _keep(runner: Runner, given: dict[str, Any], result: Result, compared: Callable[[Result], Any]) -> None:
    """Keep a result, and show it or how it compares with the last one; it is shown also where it cannot be kept."""
    from llama_runner.benchmark import history  # noqa: PLC0415 - not for --help
    from llama_runner.store import layout  # noqa: PLC0415

    before = history.latest_like(runner.store, result)
    path = _written("result", lambda: history.keep(runner.store, result), layout.benchmarks(runner.store.private))
    if before is not None and given["compare"]:
        result["before"] = before
        result["compared"] = compared(before)
    if given["as_json"]:
        click.echo(json.dumps(result))
    elif given["compare"]:
        _show_comparison(result)
    if isinstance(path, LlamaRunnerError):
        raise path
    if not given["as_json"]:
        say(f"kept      {path}")


def _written(what: str, write: Callable[[], Path], where: Path, more: str = "") -> Path | LlamaRunnerError:
    """Return the file of what was measured, or the error to be raised once it has been printed."""
    from llama_runner.serving.profiles import CannotKeep  # noqa: PLC0415 - not for --help

    try:
        return write()
    except OSError as error:
        return CannotKeep(what, where, error, f"it is printed above{more}")


_OF_CLIENTS = ("url", "profile", "concurrency", "requests", "max_tokens", "seconds")
_RAW = "{:>16}  {:>7}  {:>9}  {:>6}  {:>9}  {:>11}  {:>7}"


def _bench_raw(given: dict[str, Any]) -> None:
    from llama_runner.benchmark import history, llama_bench  # noqa: PLC0415
    from llama_runner.system import hardware  # noqa: PLC0415 - not for --help

    context = click.get_current_context()
    for name in _OF_CLIENTS:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--raw has no server: leave --{name.replace('_', '-')} out")
    extra = list(context.obj or ())
    words = llama_bench.words_for(extra, given["threads"] or hardware.physical_cores(), given["gpu_layers"])
    runner = _runner(given)
    prepared = runner.prepare(**shared.wishes(given))
    program = prepared.server.with_name(f"llama-bench{prepared.server.suffix}")
    result: Result = {"at": history.now(), "machine": history.this_machine(), "load": {"llama-bench": extra}}
    result |= _identity(runner, prepared) | {"argv": words}

    def show(test: dict[str, Any]) -> None:
        of = test["settings"]
        sizes, kinds = f"{of.get('n_batch')}/{of.get('n_ubatch')}", f"{of.get('type_k')}/{of.get('type_v')}"
        speed = (f"{test['tokens_per_second']:.2f}", f"±{test['deviation']:.2f}")
        say(_RAW.format(test["test"], str(of.get("n_threads")), sizes, str(of.get("n_gpu_layers")), kinds, *speed))

    if not given["as_json"]:
        say(_RAW.format("test", "threads", "batch", "layers", "KV", "tokens/s", "").rstrip())
    result["raw"] = llama_bench.measure(
        program, prepared.model, words, root=runner.root, on_test=(lambda _: None) if given["as_json"] else show
    )
    _keep(runner, given, result, lambda before: llama_bench.comparison(result["raw"], before["raw"]))


def _turned(driven: tuple[Any, float], clients: int) -> tuple[Any, int, float]:
    return driven[0], clients, driven[1]


@contextmanager
def _measured(runner: Runner, given: dict[str, Any], load: Load) -> Iterator[tuple[Requests, Result]]:
    """Give a server, and a result that has everything but the figures."""
    from llama_runner.benchmark import history  # noqa: PLC0415 - not for --help

    result: Result = {"at": history.now(), "machine": history.this_machine(), "load": dict(load.__dict__), "levels": []}
    if given["url"] is None:
        options = own_options(given)
        prepared = runner.prepare(server=options, **shared.wishes(given))
        result |= _identity(runner, prepared)
        with runner.launch(prepared, server=options, about=NOT_SHARED) as started:
            result["argv"] = started.spec.argv()[1:]
            yield started, result
        return
    if any(given[name] for name in ("model", "hf_model", "gguf_path", "safetensors_dir", "demo")):
        raise click.UsageError("either a model or --url")
    from llama_runner.client.sync_client import Client  # noqa: PLC0415 - not for --help
    from llama_runner.serving.llama_server.launch_spec import first_key_in  # noqa: PLC0415

    with Client(given["url"], api_key=first_key_in(os.environ)) as client:
        props = client.props()
        result |= {
            "model": {"name": props.model, "digest": props.path},
            "binary": {"build": props.build, "digest": None},
            "argv": None,
        }
        yield client, result


def _identity(runner: Runner, prepared: Prepared) -> Result:
    from llama_runner.benchmark import history  # noqa: PLC0415 - not for --help

    digest = history.model_digest(runner.store, prepared.model)
    binary = history.binary_digest(runner.store, prepared.binaries)
    return {
        "model": {"name": prepared.alias, "digest": digest},
        "binary": {"build": prepared.build.get("build"), "digest": binary},
    }


def _runner(given: dict[str, Any]) -> Runner:
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.cli import render  # noqa: PLC0415

    return Runner(given["root"], on_event=render.Printer(), lock_timeout=given["lock_timeout"])


def _show(level: dict[str, Any], *, head: bool) -> None:
    if head:
        spread = "p50, p95, p99"
        names = ("concurrency", "requests", "errors", "tokens/s", f"first token {spread}", f"latency {spread}")
        say(_SHOWN.format(*names))
    errors = sum(level["errors"].values())
    numbers = (level["concurrency"], level["requests"], errors, level["tokens_per_second"])
    say(_SHOWN.format(*numbers, _spread(level["first_token_s"]), _spread(level["latency_s"])))
    for name, count in level["errors"].items():
        say(f"{'':>11}  {count} times {name}")


def _spread(values: dict[str, float | None]) -> str:
    return ", ".join("-" if value is None else f"{value * 1000:.1f}" for value in values.values()) + " ms"


def _show_comparison(result: Result) -> None:
    before = result.get("before")
    if before is None:
        say("compared  with nothing: this is the first result of this model with this load here")
        return
    same = before["binary"] == result["binary"]
    say(f"compared  with {before['at']}, {'the same binary' if same else 'binary ' + str(before['binary']['build'])}")
    for level in result["compared"]:
        what, *figures = level.items()
        words = [f"{name.removesuffix('_s')} {value}" for name, value in figures]
        say(f"{what[1]:>11}  {', '.join(words)}   (1: as before)")


@click.command(cls=ServerCommand)
@shared.store
@shared.model
@shared.compute
@click.option(
    "--budget",
    type=shared.Number(0, 1e9, min_open=True),
    default=300.0,
    show_default=True,
    metavar="S",
    help="Seconds.",
)
@click.option("--name", metavar="NAME", help="What the profile is called; default: the model's name.")
@click.option(
    "--kv-types", default="q8_0", show_default=True, metavar="TYPE,…", help="Types of the KV cache; '': none."
)
@click.option("--clients", type=click.IntRange(1, 1024), default=1, show_default=True, help="Clients at once.")
@load_options
def tune(**given: Any) -> None:
    """Find the options that make a model fastest here, and keep them as a profile for `run --profile`."""
    from llama_runner.benchmark import history  # noqa: PLC0415
    from llama_runner.benchmark.load_generator import Load  # noqa: PLC0415
    from llama_runner.benchmark.tune import axes, search, spelled  # noqa: PLC0415
    from llama_runner.serving import profiles  # noqa: PLC0415
    from llama_runner.store import layout  # noqa: PLC0415
    from llama_runner.system import hardware  # noqa: PLC0415 - not for --help

    options = own_options(given)
    runner = _runner(given)
    prepared = runner.prepare(server=options, **shared.wishes(given))
    load = Load(max_tokens=given["max_tokens"], requests=given["requests"])
    directory = layout.profiles(runner.root)
    profiles.check_writable(directory)

    def tell(settings: Settings, score: float | None) -> None:
        found = "does not run" if score is None else f"{score:.1f} tokens/s"
        say(f"{spelled(settings)}: {found}", err=True)

    kinds = [kind.strip() for kind in given["kv_types"].split(",") if kind.strip()]
    tuned = search(
        axes(options.threads or hardware.physical_cores(), os.cpu_count() or 1, kinds),
        lambda settings: _score(runner, prepared, profiles.apply(settings, options), load, given["clients"]),
        budget=given["budget"],
        tell=tell,
    )
    about = _identity(runner, prepared) | {"machine": history.this_machine(), "at": history.now(), **_told(tuned)}
    name = given["name"] or prepared.alias
    use = f"; run takes these options after --: {spelled(tuned.settings)}" if tuned.settings else ""
    path = _written("profile", lambda: profiles.write(directory, name, tuned.settings, about), directory, use)
    failed = path if isinstance(path, LlamaRunnerError) else None
    if given["as_json"]:
        click.echo(json.dumps({"profile": None if failed else str(path), "settings": tuned.settings, **about}))
    else:
        gain = f"{tuned.score / tuned.default:.2f} times the default" if tuned.default else "the default does not run"
        say(f"best      {spelled(tuned.settings)}: {tuned.score:.1f} tokens/s, {gain}")
    if failed:
        raise failed
    if not given["as_json"]:
        say(f"kept      {path}   (llama-runner run … --profile {name})")


def _told(tuned: Tuned) -> dict[str, Any]:
    return {
        "tokens_per_second": round(tuned.score, 2),
        "default_tokens_per_second": round(tuned.default, 2),
        "tried": [{"settings": settings, "tokens_per_second": score} for settings, score in tuned.tried],
        "finished": tuned.finished,
    }


def _score(runner: Runner, prepared: Prepared, options: ServerOptions, load: Load, clients: int) -> float | None:
    """Return the tokens per second, read and written, of a server with such options; None if it cannot do it."""
    from llama_runner.benchmark.load_generator import ask, drive  # noqa: PLC0415 - not for --help
    from llama_runner.core.errors import ServerError  # noqa: PLC0415

    try:
        with runner.launch(prepared, server=options, about=NOT_SHARED) as server:
            ask(server, load, 0)
            samples, seconds = drive(server, load, clients)
    except ServerError:
        return None
    if any(sample.error for sample in samples):
        return None
    return sum(sample.tokens + sample.prompt_tokens for sample in samples) / seconds
