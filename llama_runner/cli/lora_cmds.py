"""``lora``: train LoRA adapters, compare their versions, test, merge and export them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.runner_that_prints import runner_for
from llama_runner.core.sizes import size_text
from llama_runner.request import model_and_build_options
from llama_runner.training.options import LEAST_RATE, LOSSES, TrainingOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.training.adapter_versions import History, Version

TRAIN_EXAMPLES = (
    "llama-runner lora train ORG/MODEL examples.jsonl -o legal",
    "llama-runner lora train ./my-model chats.jsonl -o legal --epochs 5 --validation 0.1 --early-stopping 2",
    "llama-runner lora train --demo examples.jsonl -o try --rank 8 --json",
)
_DEFAULTS = TrainingOptions()
_BASE = ("demo", "offline", "token_file", "update", "force")
_base = shared.made_from(option for option in model_and_build_options.ARTIFACTS if option.name in _BASE)
_waiting = shared.made_from(option for option in model_and_build_options.PIPELINE if option.name == "lock_timeout")
_offline = shared.made_from(option for option in model_and_build_options.HUB if option.name == "offline")
_adapter = click.argument("adapter", metavar="NAME[@VERSION]")


@click.group()
def lora() -> None:
    """Train, list, compare, test, merge and export LoRA adapters.

    NAME@VERSION names a version (v3), a tag or a branch of an adapter; NAME alone is its current version.
    """


def _whole(flag: str, name: str, text: str, default: str | None = None) -> Callable[[Any], Any]:
    most = TrainingOptions.most.get(name, 10**6)
    number = click.IntRange(TrainingOptions.least[name], most)
    return shared.option(flag, name, type=number, help=text, default_text=default or str(getattr(_DEFAULTS, name)))


def _part(flag: str, text: str, default: str, *, least: float = 0.0, most: float = 1.0) -> Callable[[Any], Any]:
    number = shared.Number(least, most, max_open=True)
    return shared.option(flag, type=number, metavar="X", help=text, default_text=default)


_options = shared.together(
    _whole("--rank", "rank", "Rank of the adapter's matrices."),
    _whole("--alpha", "alpha", "The adapter is scaled by this number over the rank.", "twice the rank"),
    _part("--dropout", "Share of the adapter's inputs that is dropped.", "0"),
    shared.option(
        "--targets", metavar="NAMES", help="Modules to adapt: all, attention, or names with commas.", default_text="all"
    ),
    _whole("--epochs", "epochs", "How often each example is seen."),
    _whole("--batch", "batch", "Sequences a step."),
    _part("--learning-rate", "Highest learning rate.", _DEFAULTS.learning_rate, least=LEAST_RATE, most=100.0),
    _whole("--seed", "seed", "Seed of weights, order and dropout."),
    _whole("--sequence-length", "length", "Most tokens of a sequence; longer ones are cut."),
    shared.option(
        "--loss", type=click.Choice(LOSSES), help="Learn the answers only, or everything.", default_text="answers"
    ),
    _part("--validation", "Share of the sequences to hold out.", "0"),
    _whole("--early-stopping", "early_stopping", "Stop after N epochs without a lower validation loss.", "never"),
    shared.option("--gradient-checkpointing", is_flag=True, help="Use less memory and more time."),
)


@lora.command(cls=GroupedCommand, examples=TRAIN_EXAMPLES)
@shared.store
@_base
@_waiting
@_options
@shared.option("-o", "--output", "name", metavar="NAME", required=True, help="Name of the adapter.")
@shared.option("--from", "start", metavar="VERSION", help="Begin with the weights of this version of the adapter.")
@shared.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda")),
    default="auto",
    help="What to train on; auto takes CUDA where there is an NVIDIA GPU.",
)
@shared.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.", default_text="the physical cores")
@shared.option(
    "--checkpoint-every",
    "checkpoint_s",
    type=shared.SECONDS,
    metavar="S",
    default=30.0,
    help="Seconds between checkpoints.",
)
@shared.option("--git", metavar="DIR", help="Write the versions of the adapter into this git repository too.")
@click.argument("words", nargs=-1, metavar="[BASE] DATA")
def train(**given: Any) -> None:
    """Train an adapter, unless the same training is done.

    BASE is a directory of safetensors or a name on the Hub. DATA has one JSON object a line: messages, or prompt and
    completion, or text; any other file is one text. It is checked before anything is fetched. An interrupted training
    goes on from its last checkpoint when the same command is run again. On the CPU the same command gives the same
    weights on the same machine.
    """
    words = given.pop("words")
    expected = 1 if given["demo"] else 2
    if len(words) != expected:
        raise click.UsageError("name BASE and DATA" if expected > 1 else "with --demo, name DATA only")
    base, data = (None, *words) if given["demo"] else words
    options: Any = {name: given[name] for name in TrainingOptions.fields if given[name] is not None}
    keywords = {name: given[name] for name in _BASE}
    keywords["force"] = ("train",) if given["force"] else ()
    adapters = runner_for(given, events=given["as_json"]).adapters
    if given["git"] is not None:
        adapters.check_repository(given["git"])
    done = adapters.train(
        base,
        data=data,
        name=given["name"],
        options=options,
        device=given["device"],
        threads=given["threads"],
        start=given["start"],
        checkpoint_s=given["checkpoint_s"],
        **keywords,
    )
    if given["git"] is not None:
        adapters.commit(given["name"], given["git"])
    if given["as_json"]:
        click.echo(json.dumps({"event": "trained", **done.to_json()}))
        return
    version = done.version
    loss = f"loss {version.metrics['first_loss']} -> {version.metrics['loss']}"
    say(f"{'trained' if done.ran else 'is there':<9} {given['name']}@{version.id}  {loss}  {done.path}")


@lora.command("list")
@shared.store
def list_(**given: Any) -> None:
    """List the adapters that were trained here."""
    found = runner_for(given).adapters.list()
    if given["as_json"]:
        click.echo(json.dumps([each.to_json() for each in found]))
        return
    for history in found:
        head = history.head
        about = "" if head is None else f"{head.id:<5} loss {head.metrics['loss']:<10} {head.base['name']}"
        say(f"{history.name:<20} {history.branch:<8} {about}  {len(history.versions)} versions")
    if not found:
        say("there are none; train one with: llama-runner lora train", err=True)


@lora.command()
@shared.store
@_adapter
def show(**given: Any) -> None:
    """Show a version: base, data, options, losses, files."""
    adapters = runner_for(given).adapters
    history, version = adapters.show(given["adapter"])
    path = adapters.path(version)
    files = {each.name: each.stat().st_size for each in sorted(path.iterdir())} if path.is_dir() else {}
    if given["as_json"]:
        names = history.names_of(version)
        click.echo(json.dumps({**version.to_json(), "names": names, "path": str(path), "files": files}))
        return
    say(*_about(history, version), f"path      {path}")
    say(*(f"  {name}  {size_text(size)}" for name, size in files.items() if name != ".state.json"))


def _about(history: History, version: Version) -> list[str]:
    def pairs(found: Any) -> str:
        return ", ".join(
            f"{name} {_short(value)}" for name, value in found.items() if value not in (None, "") and value is not False
        )

    return [
        f"version   {history.name}@{version.id}  {' '.join(history.names_of(version))}",
        f"parent    {version.parent or 'none'}" + (f", began with {version.start}" if version.start else ""),
        f"digest    {version.digest}",
        f"base      {pairs({k: v for k, v in version.base.items() if k != 'source'})}",
        f"data      {pairs(version.data)}",
        f"options   {pairs(version.options)}",
        f"metrics   {pairs(version.metrics)}",
        f"made      {version.made}",
    ]


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


@lora.command()
@shared.store
def status(**given: Any) -> None:
    """Show trainings that run or were interrupted."""
    found = runner_for(given).adapters.status()
    if given["as_json"]:
        click.echo(json.dumps([each.to_json() for each in found]))
        return
    for each in found:
        state = "runs" if each.is_running else "interrupted; the same command goes on"
        say(f"{each.name:<20} checkpoint at step {each.step} of {each.steps}  {state}")
    if not found:
        say("no training runs or waits to go on", err=True)


@lora.command()
@shared.store
@_adapter
@shared.option("--all", "everything", is_flag=True, help="All versions, not only the ancestors.")
def log(**given: Any) -> None:
    """List a version and its ancestors, newest first."""
    adapters = runner_for(given).adapters
    found = adapters.log(given["adapter"], everything=given["everything"])
    if given["as_json"]:
        click.echo(json.dumps([each.to_json() for each in found]))
        return
    history, _ = adapters.show(given["adapter"])
    for version in found:
        names = " ".join(history.names_of(version))
        data = f"{version.data['name']} ({version.data['examples']})"
        say(f"{version.id:<5} {version.made}  loss {version.metrics['loss']:<10} {data}  {names}".rstrip())


@lora.command()
@shared.store
@_adapter
@click.argument("other", required=False, metavar="[VERSION]")
def diff(**given: Any) -> None:
    """Show what differs between two versions.

    A single version is compared with its parent.
    """
    found = runner_for(given).adapters.diff(given["adapter"], given["other"])
    if given["as_json"]:
        click.echo(json.dumps({name: list(values) for name, values in found.items()}))
        return
    say(*(f"{name:<26} {_short(before)} -> {_short(after)}" for name, (before, after) in found.items()))


@lora.command()
@shared.store
@_adapter
def rollback(**given: Any) -> None:
    """Make the parent, or VERSION, the current version."""
    _tell(given, runner_for(given).adapters.rollback(given["adapter"]))


@lora.command()
@shared.store
@_adapter
@click.argument("name")
@shared.option("--remove", is_flag=True, help="Remove the tag.")
def tag(**given: Any) -> None:
    """Give a version another name."""
    _tell(given, runner_for(given).adapters.tag(given["adapter"], given["name"], remove=given["remove"]))


@lora.command()
@shared.store
@click.argument("adapter", metavar="NAME")
@click.argument("name", metavar="BRANCH")
@shared.option("--create", is_flag=True, help="Make the branch; it begins at the current version.")
def branch(**given: Any) -> None:
    """Make another branch the current one."""
    _tell(given, runner_for(given).adapters.branch(given["adapter"], given["name"], create=given["create"]))


def _tell(given: dict[str, Any], history: History) -> None:
    if given["as_json"]:
        click.echo(json.dumps(history.to_json()))
    else:
        version = history.find(None)
        say(f"{history.name}  branch {history.branch}, current {version.id}, loss {version.metrics['loss']}")


@lora.command()
@shared.store
@_waiting
@_offline
@_adapter
@shared.option("-q", "--quantization", metavar="TYPE", help="Make a GGUF file of this type of it.")
@shared.option("-o", "--output", metavar="FILE|DIR/", help="Put a copy of the GGUF file here as well.")
def merge(**given: Any) -> None:
    """Merge an adapter into its base.

    The result is a directory of safetensors, or with -q a GGUF file.
    """
    found = runner_for(given).adapters.merge(
        given["adapter"], quantization=given["quantization"], output=given["output"], offline=given["offline"]
    )
    path = getattr(found, "path", found)
    if given["as_json"]:
        click.echo(json.dumps({"path": str(path)}))
    else:
        say(str(path))


@lora.command()
@shared.store
@_adapter
@shared.option("-o", "--output", metavar="DIR", help="The directory to make, in the form of PEFT.")
@shared.option("--git", metavar="DIR", help="Write all versions into this git repository instead.")
def export(**given: Any) -> None:
    """Write a PEFT directory, or a git repository.

    The directory has one version, the repository has all of them.
    """
    if (given["output"] is None) == (given["git"] is None):
        raise click.UsageError("name a directory with --output, or a repository with --git")
    adapters = runner_for(given).adapters
    if given["git"] is not None:
        commits = adapters.commit(given["adapter"], given["git"])
        if given["as_json"]:
            click.echo(json.dumps([each.to_json() for each in commits]))
        else:
            say(*(f"{each.commit[:12]}  {each.message}" for each in commits))
        return
    path = adapters.export(given["adapter"], given["output"])
    click.echo(json.dumps({"path": str(path)})) if given["as_json"] else say(str(path))


@lora.command()
@shared.store
@_adapter
def remove(**given: Any) -> None:
    """Delete a version, or an adapter with all of them.

    NAME@VERSION is one version.
    """
    found = runner_for(given).adapters.remove(given["adapter"])
    click.echo(json.dumps(found)) if given["as_json"] else say(*(f"removed   {each}" for each in found))


@lora.command()
@shared.store
@_waiting
@_offline
@_adapter
@shared.option("--question", "questions", multiple=True, metavar="TEXT", help="Ask this. May be repeated.")
@shared.option("--data", metavar="FILE", help="Ask the questions of training data, and compare with its answers.")
@shared.option("--most", type=click.IntRange(1), default=10, help="Questions of --data to ask.")
@shared.option("--tokens", type=click.IntRange(1), default=200, help="Most tokens of an answer.")
@shared.option("-q", "--quantization", metavar="TYPE", help="Type of the base model.", default_text="as of run")
def test(**given: Any) -> None:
    """Ask the same questions with and without an adapter.

    llama-server answers them.
    """
    found = runner_for(given).adapters.test(
        given["adapter"],
        questions=list(given["questions"]),
        data=given["data"],
        most=given["most"],
        tokens=given["tokens"],
        quantization=given["quantization"],
        offline=given["offline"],
    )
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
        return
    for each in found.answers:
        say(f"question  {each.question}", f"without   {each.without}", f"with      {each.with_adapter}")
        if each.expected and not each.is_expected:
            say(f"expected  {each.expected}")
        say("")
    known = sum(bool(each.expected) for each in found.answers)
    say(f"{found.changed} of {len(found.answers)} answers changed; {found.expected} of {known} are those of the data")
