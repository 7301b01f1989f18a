"""The command that looks for models on the Hub, and its table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import joined, say
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from llama_runner.sources.hub.search import SearchResult

_MOST = 100
_UNITS = ("", "k", "M", "G")
_FITS = {True: "fits", False: "too large"}


@click.command()
@shared.store
@click.argument("words", nargs=-1, required=True)
@shared.option("--limit", type=click.IntRange(1, _MOST), default=10, help="Maximum number of repositories.")
@shared.option(
    "--token-file",
    metavar="FILE",
    help="Read the token for the Hub from this file.",
    default_text="HF_TOKEN, or the token of `hf auth login`",
)
def search(**given: Any) -> None:
    """Find GGUF models on the Hugging Face Hub.

    Lists their quantizations with sizes, and what fits into the memory of this machine.
    """
    from llama_runner.api import Runner  # noqa: PLC0415
    from llama_runner.cli import text_output  # noqa: PLC0415
    from llama_runner.system import hardware  # noqa: PLC0415 - not for --help

    words = " ".join(given["words"])
    runner = Runner(given["root"], on_event=text_output.Printer())
    found = runner.search(words, limit=given["limit"], token_file=given["token_file"])
    if given["as_json"]:
        click.echo(json.dumps([repository.to_json() for repository in found]))
    elif found:
        click.echo(table(found, hardware.model_budget()))
    else:
        say(f"nothing with GGUF files is found for {words!r}")


def table(found: list[SearchResult], budget: int) -> str:
    """Return a block of lines for each repository; the last line says what "fits" was measured against."""
    every = [quantization for repo in found for quantization in repo.quantizations]
    wide = max((len(quantization.name) for quantization in every), default=0)
    wider = max((len(size_text(quantization.size)) for quantization in every), default=0)
    lines = []
    for repo in found:
        lines.append(f"{repo.repo}   {_about(repo)}")
        lines += [
            f"  {quantization.name:<{wide}}  {size_text(quantization.size):>{wider}}  {_FITS[quantization.fits]}"
            for quantization in repo.quantizations
        ]
        if not repo.quantizations:
            lines.append(f"  {repo.problem or 'no whole GGUF file of a model at the branch main'}")
    lines.append("")
    lines.append(f"up to {size_text(budget)} fits this machine; run one with: llama-runner run {_example(found)}")
    return joined(lines)


def _about(repo: SearchResult) -> str:
    facts = [f"{_brief(repo.downloads)} downloads", f"{_brief(repo.likes)} likes"]
    facts += [f"updated {repo.updated[:10]}"] if repo.updated else []
    return ", ".join(facts + ["gated"] * repo.gated)


def _brief(count: int | None) -> str:
    """Return a count for people: 1234567 is 1.2M."""
    if count is None:
        return "?"
    unit, value = 0, float(count)
    while value >= 1000 and unit < len(_UNITS) - 1:  # noqa: PLR2004
        unit, value = unit + 1, value / 1000
    return f"{value:.1f}{_UNITS[unit]}" if unit else str(count)


def _example(found: list[SearchResult]) -> str:
    """Return what could be run: the largest that fits of the most popular."""
    for repo in found:
        if fitting := [q.name for q in repo.quantizations if q.fits and q.name != q.file]:
            return f"{repo.repo}:{fitting[-1]}"
    return "ORG/MODEL:QUANT"
