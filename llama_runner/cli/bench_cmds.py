"""Commands that measure a server under load, and that look for the options that make it fastest."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.infer_and_chat_cmds import own_options
from llama_runner.cli.llama_server_options import ServerCommand

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.api import Runner
    from llama_runner.benchmark.results import BenchTest, Level, ProgramFigures, ServerFigures
    from llama_runner.benchmark.tune import Settings
    from llama_runner.serving.tuned_profiles import CannotKeep

_Result = TypeVar("_Result")

BENCH_EXAMPLES = (
    "llama-runner bench --demo --concurrency 1,4 --compare",
    "llama-runner bench --url http://127.0.0.1:8080",
    "llama-runner bench --demo --raw -- -p 512 -n 128",
)

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
    shared.option("--max-tokens", type=click.IntRange(1), default=64, help="Number of tokens of each answer."),
    shared.option(
        "--requests", type=click.IntRange(1), default=4, metavar="N", help="Number of requests of each client."
    ),
)


@click.command(cls=ServerCommand, examples=BENCH_EXAMPLES)
@shared.store
@shared.model
@shared.compute
@shared.profile
@shared.option("--url", metavar="URL", help="Measure the server at this address; its API key is LLAMA_API_KEY.")
@shared.option(
    "--concurrency", type=Levels(), default="1,2,4,8", help="Numbers of clients at once, one after the other."
)
@load_options
@shared.option(
    "--seconds",
    type=shared.Number(0, 1e9, min_open=True),
    metavar="S",
    help="Let each client ask for S seconds instead of --requests.",
)
@shared.option("--compare", is_flag=True, help="Compare with the last result of this model and load on this machine.")
@shared.option("--raw", is_flag=True, help="Measure with llama-bench instead of a server; options after -- go to it.")
def bench(**given: Any) -> None:
    """Measure a server under load.

    Prints and keeps the time to the first token, tokens per second, latency and errors.
    """
    if given["raw"]:
        _bench_raw(given)
        return
    from llama_runner.benchmark.load_generator import Load  # noqa: PLC0415 - not for --help

    seconds = given["seconds"]
    load = Load(
        max_tokens=given["max_tokens"], requests=given["requests"] if seconds is None else None, seconds=seconds
    )
    heads = iter([True])

    def show(level: Level) -> None:
        if not given["as_json"]:
            _show(level, head=next(heads, False))

    how: dict[str, Any] = {"concurrency": given["concurrency"], "load": load, "on_level": show}
    benchmarks = _runner(given).benchmarks
    if given["url"] is None:
        keywords = shared.keywords(given)
        _show_result(given, lambda: benchmarks.bench(**keywords, server=own_options(given), **how))
        return
    if any(given[name] for name in ("model", "hf_model", "gguf_path", "safetensors_dir", "demo")):
        raise click.UsageError("either a model or --url")
    _show_result(given, lambda: benchmarks.bench_url(given["url"], **how))


def _show_result(given: dict[str, Any], measure: Callable[[], ServerFigures | ProgramFigures]) -> None:
    """Measure and show the result and how it compares with the last one; it is shown also where it cannot be kept."""
    result, failure = _measured(measure)
    if given["as_json"]:
        compared = {"before": result.before, "compared": result.compared}
        click.echo(json.dumps(result.to_json() | (compared if given["compare"] and result.before else {})))
    elif given["compare"]:
        _show_comparison(result)
    if failure is not None:
        raise failure
    if not given["as_json"]:
        say(f"kept      {result.path}")


def _measured(measure: Callable[[], _Result]) -> tuple[_Result, CannotKeep | None]:
    """Return a result, and the error to raise once it is printed where it could not be kept."""
    from llama_runner.serving.tuned_profiles import CannotKeep  # noqa: PLC0415 - not for --help

    try:
        return measure(), None
    except CannotKeep as error:
        if error.result is None:
            raise
        error.hint = "it is printed above"
        return cast("_Result", error.result), error


_OF_CLIENTS = ("url", "profile", "concurrency", "requests", "max_tokens", "seconds")
_RAW = "{:>16}  {:>7}  {:>9}  {:>6}  {:>9}  {:>11}  {:>7}"


def _bench_raw(given: dict[str, Any]) -> None:
    context = click.get_current_context()
    for name in _OF_CLIENTS:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--raw has no server: leave --{name.replace('_', '-')} out")

    heads = iter([True])

    def show(test: BenchTest) -> None:
        if given["as_json"]:
            return
        if next(heads, False):
            say(_RAW.format("test", "threads", "batch", "layers", "KV", "tokens/s", "").rstrip())
        of = test.settings
        sizes, kinds = f"{of.get('n_batch')}/{of.get('n_ubatch')}", f"{of.get('type_k')}/{of.get('type_v')}"
        speed = (f"{test.tokens_per_second:.2f}", f"±{test.deviation:.2f}")
        say(_RAW.format(test.test, str(of.get("n_threads")), sizes, str(of.get("n_gpu_layers")), kinds, *speed))

    how: dict[str, Any] = {"options": context.obj or (), "threads": given["threads"], "on_test": show}
    benchmarks, keywords = _runner(given).benchmarks, shared.keywords(given)
    _show_result(given, lambda: benchmarks.bench_programs(**keywords, gpu_layers=given["gpu_layers"], **how))


def _runner(given: dict[str, Any]) -> Runner:
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.cli import text_output  # noqa: PLC0415

    return Runner(given["root"], on_event=text_output.Printer(), lock_timeout=given["lock_timeout"])


def _show(level: Level, *, head: bool) -> None:
    if head:
        spread = "p50, p95, p99"
        names = ("concurrency", "requests", "errors", "tokens/s", f"first token {spread}", f"latency {spread}")
        say(_SHOWN.format(*names))
    numbers = (level.concurrency, level.requests, sum(level.errors.values()), level.tokens_per_second)
    say(_SHOWN.format(*numbers, _spread(level.first_token_s), _spread(level.latency_s)))
    for name, count in level.errors.items():
        say(f"{'':>11}  {count} times {name}")


def _spread(values: dict[str, float | None]) -> str:
    return ", ".join("-" if value is None else f"{value * 1000:.1f}" for value in values.values()) + " ms"


def _show_comparison(result: ServerFigures | ProgramFigures) -> None:
    before = result.before
    if before is None:
        say("compared  with nothing: this is the first result of this model with this load here")
        return
    same = before["binary"] == result.binary
    say(f"compared  with {before['at']}, {'the same binary' if same else 'binary ' + str(before['binary']['build'])}")
    for level in result.compared:
        what, *figures = level.items()
        words = [f"{name.removesuffix('_s')} {value}" for name, value in figures]
        say(f"{what[1]:>11}  {', '.join(words)}   (1: as before)")


@click.command(cls=ServerCommand, examples=("llama-runner tune --demo --budget 60 --name fast",))
@shared.store
@shared.model
@shared.compute
@shared.option(
    "--budget",
    type=shared.Number(0, 1e9, min_open=True),
    default=300.0,
    metavar="S",
    help="Seconds after which nothing new is tried.",
)
@shared.option("--name", metavar="NAME", help="Name of the profile.", default_text="that of the model")
@shared.option("--kv-types", default="q8_0", metavar="TYPE,…", help="Types of the KV cache to try; '' tries none.")
@shared.option("--clients", type=click.IntRange(1, 1024), default=1, help="Number of clients at once.")
@load_options
def tune(**given: Any) -> None:
    """Find the options that make a model fastest here.

    They are kept as a profile, for `run --profile NAME`.
    """
    from llama_runner.benchmark.load_generator import Load  # noqa: PLC0415 - not for --help
    from llama_runner.benchmark.tune import settings_text  # noqa: PLC0415

    def tell(settings: Settings, score: float | None) -> None:
        found = "does not run" if score is None else f"{score:.1f} tokens/s"
        say(f"{settings_text(settings)}: {found}", err=True)

    benchmarks, keywords = _runner(given).benchmarks, shared.keywords(given)
    how: dict[str, Any] = {name: given[name] for name in ("name", "budget", "clients")}
    how["kv_types"] = [kind.strip() for kind in given["kv_types"].split(",") if kind.strip()]
    how["load"] = Load(max_tokens=given["max_tokens"], requests=given["requests"])
    tuned, failure = _measured(lambda: benchmarks.tune(**keywords, server=own_options(given), on_try=tell, **how))
    if given["as_json"]:
        click.echo(json.dumps(tuned.to_json()))
    else:
        score, default = tuned.tokens_per_second, tuned.default_tokens_per_second
        gain = f"{score / default:.2f} times the default" if default else "the default does not run"
        say(f"best      {settings_text(tuned.settings)}: {score:.1f} tokens/s, {gain}")
    if failure is not None:
        if tuned.settings and failure.hint:
            failure.hint += f"; run takes these options after --: {settings_text(tuned.settings)}"
        raise failure
    if not given["as_json"]:
        say(f"kept      {tuned.path}   (llama-runner run … --profile {tuned.name})")
