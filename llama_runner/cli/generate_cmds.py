"""``generate``: files that run declared models elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.declared_model_arguments import config_path
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.runner_that_prints import runner_for
from llama_runner.core.printable_text import printable
from llama_runner.core.sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.generate.generated_files import Generated, Target

EXAMPLES = (
    "llama-runner generate dockerfile -o Dockerfile",
    "llama-runner generate compose --variant cuda -o compose.yaml",
    "llama-runner generate kubernetes --image registry/llama-runner:1 --memory 8G",
)


@click.group(epilog="The files are printed, or written with -o. The names are those of llama-runner.toml.")
def generate() -> None:
    """Write files that run declared models elsewhere."""


_output = shared.together(
    shared.option(
        "-o", "--output", metavar="FILE|DIR", help="Write there; several files need a directory.", default_text="print"
    ),
    shared.option("--force", is_flag=True, help="Overwrite a file that has another content."),
)
_variant = shared.option(
    "--variant", type=click.Choice(("cpu", "cuda", "vulkan")), default="cpu", help="What the image computes on."
)
_models = shared.option(
    "--model", "names", multiple=True, metavar="NAME", help="A declared model; may be repeated.", default_text="all"
)
_containers = shared.together(
    _models,
    _variant,
    shared.option(
        "--per-model", is_flag=True, help="A container for each of several models, instead of the gateway for all."
    ),
    shared.option("--image", metavar="NAME", help="Image to run.", default_text="llama-runner:VERSION-VARIANT"),
    shared.option(
        "--memory",
        multiple=True,
        metavar="[NAME=]SIZE",
        help="Limit of the memory of all models or of one; may be repeated.",
        default_text="what a model that is prepared here takes",
    ),
    shared.option(
        "--remote-store",
        metavar="DIR|URL",
        help="Remote store that the containers fetch from.",
        default_text="the one of the file",
    ),
)
_gpus = shared.option("--gpus", type=click.IntRange(1), default=1, help="Number of GPUs of each model.")


def _command(name: str, *options: Callable[[Any], Any]) -> Callable[[Any], click.Command]:
    """Return a decorator for the command of a target."""

    def add(function: Callable[..., None]) -> click.Command:
        made: click.Command = generate.command(name, cls=GroupedCommand)(
            shared.together(shared.store, *options, _output)(function)
        )
        return made

    return add


@_command("dockerfile", _variant)
def dockerfile(**given: Any) -> None:
    """Write the Dockerfile of the image.

    With `docker build` it installs llama-runner and builds llama.cpp's programs, or fetches them from a remote store.
    """
    _write("dockerfile", given)


@_command("compose", _containers, _gpus)
def compose(**given: Any) -> None:
    """Write a Compose file with the models.

    Several models are one service, the gateway; with --per-model each has its own.
    """
    _write("compose", given)


@_command("quadlet", _containers)
def quadlet(**given: Any) -> None:
    """Write Quadlet units for Podman.

    A container, a volume and a network. Several models are one container, the gateway; with --per-model each has its
    own.
    """
    _write("quadlet", given)


@_command(
    "kubernetes",
    _containers,
    _gpus,
    shared.option("--gpu-resource", metavar="NAME", help="Resource of a GPU.", default_text="nvidia.com/gpu for cuda"),
    shared.option(
        "--storage",
        type=shared.Size(),
        default=50 << 30,
        metavar="SIZE",
        default_text="50G",
        help="Volume of each model.",
    ),
    shared.option(
        "--max-replicas",
        type=click.IntRange(1),
        default=1,
        help="Pods of each model at most; more than 1 needs a remote store.",
    ),
)
def kubernetes(**given: Any) -> None:
    """Write objects for Kubernetes.

    A Deployment, a Service and a volume. Several models are one Deployment, the gateway; with --per-model each has its
    own. With a remote store, each pod fetches what it needs and no volume is kept; --max-replicas adds an autoscaler.
    """
    _write("kubernetes", given)


@_command(
    "systemd",
    _models,
    shared.option("--system", "user", metavar="USER", help="Write units of the system that run as this user."),
    shared.option("--program", metavar="PATH", default="llama-runner", help="The llama-runner that is started."),
)
def systemd(**given: Any) -> None:
    """Write systemd units for any machine.

    One for each model. `service install` writes one for this machine.
    """
    _write("systemd", given)


def _write(target: Target, given: dict[str, Any]) -> None:
    from llama_runner.generate.generated_files import GenerateOptions  # noqa: PLC0415 - not for --help

    taken = {name: value for name, value in given.items() if name in GenerateOptions.fields and value is not None}
    if "memory" in taken:
        taken["memory"] = _memory(given["memory"])
    made = runner_for(given).generate(
        target, *given.get("names", ()), config=config_path(given), options=GenerateOptions(**taken)
    )
    paths = [] if given["output"] is None else made.write(given["output"], force=given["force"])
    if given["as_json"]:
        click.echo(json.dumps({**made.to_json(), "written": [str(path) for path in paths]}))
        return
    for path in paths:
        say(f"written   {path}", err=True)
    if not paths:
        click.echo(_printed(made), nl=False)
    for note in made.notes:
        say(f"note      {printable(note)}", err=True)


def _printed(made: Generated) -> str:
    """Return the files as one text; several have their names before them."""
    if len(made.files) == 1:
        return next(iter(made.files.values()))
    return "\n".join(f"# ---- {name}\n{text}" for name, text in made.files.items())


def _memory(given: tuple[str, ...]) -> dict[str, int] | int | None:
    """Return the sizes of ``--memory``: one for all, or by name."""
    sizes: dict[str, int] = {}
    for text in given:
        name, _, size = text.rpartition("=")
        try:
            sizes[name] = parse_size(size)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--memory") from None
    if "" in sizes and len(sizes) > 1:
        raise click.BadParameter("give one size for all models, or one for each name", param_hint="--memory")
    return sizes.get("", sizes or None)
