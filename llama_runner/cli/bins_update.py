"""``bins update --check``: whether there is a newer llama.cpp, and how to take it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.core.sizes import count_text

if TYPE_CHECKING:
    from llama_runner.llama_cpp.newer_versions import IndexStatus, ReleaseStatus, Updates

MOVE_PIN = "python scripts/update_llama_cpp.py"


@click.command()
@shared.store
@shared.option("--check", is_flag=True, help="Print what there is; change nothing.")
@shared.option("--offline", is_flag=True, help="Use no network; print what is known.")
def update(**given: Any) -> None:
    """Compare the pinned llama.cpp with newer ones; needs --check.

    Newer ones are those of the package index and of the releases.
    """
    if not given["check"]:
        raise click.UsageError(f"say --check; in a checkout, {MOVE_PIN} moves the pin")
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.store import layout  # noqa: PLC0415

    news = Runner(given["root"]).bins.updates(offline=given["offline"])
    if given["as_json"]:
        click.echo(json.dumps(news.to_json()))
        return
    say(*describe(news, in_checkout=layout.checkout() is not None))
    for note in news.releases.notes:
        say(f"note: {note}", err=True)


def describe(news: Updates, *, in_checkout: bool) -> list[str]:
    """Return the news as lines for people."""
    pin = news.pin
    lines = [
        f"pinned     b{pin.build}, in {pin.package} {pin.version}",
        f"index      {_of_index(news.index)}",
        f"releases   {_of_releases(news.releases)}",
    ]
    if news.index.behind:
        how = MOVE_PIN if in_checkout else "upgrade llama_runner: the pin comes with it"
        lines.append(f"to take what the index has:     {how}")
    if news.releases.behind:
        tag = news.releases.tag
        if news.releases.archive:
            lines.append("to take the release's programs: --binaries prebuilt --update")
        lines.append(f"to build what was released:     --source https://github.com/ggml-org/llama.cpp@{tag}")
    return lines


def _of_index(index: IndexStatus) -> str:
    if index.newest is None:
        return f"unknown: {index.why}"
    return f"{index.newest}: {_distance(index.behind, 'version')}"


def _of_releases(released: ReleaseStatus) -> str:
    if released.tag is None:
        return f"unknown: {released.why}"
    when = f" of {released.published[:10]}" if released.published else ""
    lacks = "" if released.archive else "; it has no programs for this machine"
    return f"{released.tag}{when}: {_distance(released.behind, 'build')}{lacks}"


def _distance(behind: int | None, unit: str) -> str:
    if behind is None:
        return "no build that can be compared"
    if behind == 0:
        return "nothing newer"
    return f"newer by {count_text(behind, unit)}"
