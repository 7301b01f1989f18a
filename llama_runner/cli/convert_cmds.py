"""``convert`` and ``quantize``, which make model files, and ``inspect``, which reads their headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import joined, say
from llama_runner.cli.help import GroupedCommand
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from llama_runner.request.model_inspection import Inspection
    from llama_runner.request.result_types import ModelFile

QUANTIZE_EXAMPLES = (
    "llama-runner quantize ./my-model -q q4_k_m -o model.gguf",
    "llama-runner quantize model-f16.gguf -q q4_k_m,q8_0 --quality text.txt",
)

_OUTPUT = shared.option(
    "-o",
    "--output",
    metavar="FILE|DIR/",
    help="Put a copy here as well; of a model in N files, NAME-00001-of-0000N.gguf and so on. "
    "DIR/ puts it into that directory, named after the model.",
)


@click.command(cls=GroupedCommand, examples=("llama-runner convert ./my-model --outtype bf16 -o model.gguf",))
@shared.store
@shared.model
@_OUTPUT
@shared.with_sha256
def convert(**given: Any) -> None:
    """Convert safetensors to GGUF, to the type of --outtype."""
    outtype = "auto" if given["outtype"] == "q8_0" else given["outtype"]  # -q q8_0 is llama-quantize's
    _make({**given, "quantization": given["quantization"] or outtype, "keep_f16": True})


@click.command(cls=GroupedCommand, examples=QUANTIZE_EXAMPLES)
@shared.store
@shared.model
@_OUTPUT
@shared.with_sha256
def quantize(**given: Any) -> None:
    """Quantize a model; several types at once: -q q4_k_m,q8_0.

    The model is a GGUF file, a directory of safetensors, or a name on the Hub.
    """
    if given["quantization"] is None:
        raise click.UsageError("say to what with -q TYPE")
    _make(given)


@click.command()
@click.argument(  # what cannot be read is not a wrong usage
    "path", cls=shared.CompletedArgument, type=click.Path(readable=False, path_type=Path)
)
@shared.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@shared.option("--tensors", is_flag=True, help="List every tensor.")
@shared.option("--template", is_flag=True, help="Print only the chat template.")
def inspect(path: Path, *, as_json: bool, tensors: bool, template: bool) -> None:
    """Show what a GGUF file or a model directory holds.

    Reads headers only. Of a model in several files, one is enough.
    """
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help

    found = Runner().inspect(path)
    if template:
        click.echo(found.template or "")
    elif as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        click.echo(describe(found, tensors=tensors))


def describe(found: Inspection, *, tensors: bool) -> str:
    """Return a model's headers as text for people."""
    more = f" and {len(found.files) - 1} more" if len(found.files) > 1 else ""
    types = ", ".join(f"{count} {name}" for name, count in found.types.items())
    lines = [
        f"file      {found.files[0]}{more}",
        f"size      {size_text(found.bytes)}, {found.bits_per_weight:.2f} bits a weight",
        f"model     {_or_unknown(found.architecture)}, {found.parameters:,} parameters",
        f"tensors   {types}",
        f"context   {_or_unknown(found.context_length)} tokens, vocabulary {_or_unknown(found.vocabulary)}",
        f"template  {'none' if found.template is None else f'{len(found.template)} characters (--template prints it)'}",
    ]
    width = max((len(name) for name in found.metadata), default=0)
    lines += [f"  {name:<{width}}  {_brief(value)}" for name, value in found.metadata.items()]
    if tensors:
        lines += [f"  {t.name}  {' x '.join(map(str, t.shape))}  {t.type}  {size_text(t.bytes)}" for t in found.tensors]
    return joined(lines)


def _or_unknown(value: object) -> object:
    return "unknown" if value is None else value


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['array']} elements"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 90 else f"{text[:89]}…"  # noqa: PLR2004


def _make(given: dict[str, Any]) -> None:
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.cli import text_output  # noqa: PLC0415

    runner = Runner(given["root"], on_event=text_output.Printer(), lock_timeout=given["lock_timeout"])
    made = runner.make(**shared.keywords(given), output=given["output"])
    digests = [one.sha256 for one in made] if given["with_sha256"] else []
    if given["as_json"]:
        click.echo(json.dumps([one.to_json() for one in made]))
    else:
        say(
            *map(_line, made),
            *(f"{'sha256':<9} {digest}" for digest in digests if digest),
            *(f"{'copied':<9} {copy}" for one in made for copy in one.copies),
        )
        if figures := {one.path.name: one.quality for one in made if one.quality}:
            click.echo(text_output.quality(figures))


def _line(made: ModelFile) -> str:
    bits = made.facts.get("bits_per_weight")
    told = (made.facts.get("quantization"), size_text(made.bytes), bits and f"{bits} bits a weight")
    how = "fetched" if made.fetched else "made" if made.ran else "is there"
    return f"{how:<9} {made.path} ({', '.join(filter(None, told))})"
