"""Writes a request as the words of ``llama-runner run``: the reverse of what the command line parses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.request.lifecycle_options import LIFE_CYCLE
from llama_runner.request.model_and_build_options import ARTIFACTS
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.serving.llama_server.option_definitions import SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.option_definition import Option


def run_arguments(
    model: str | Path | None,
    server: ServerOptions | None,
    keywords: Mapping[str, Any],
    life_cycle: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return the words after ``llama-runner run``; what is the default is left out.

    ``life_cycle`` has ``restart`` and ``restart_limit``.
    """
    server = server or ServerOptions()
    words = [] if model is None else [str(model)]
    given = {**keywords, **(life_cycle or {})}
    if given.get("force"):
        given["force_step"], given["force"] = given["force"], ()
    for option in (*ARTIFACTS, *LIFE_CYCLE):
        if option.name in given:
            words += _words(option, given[option.name])
    for option in SERVER:
        words += _words(option, getattr(server, option.name))
    return [*words, *(("--", *server.extra) if server.extra else ())]


def _words(option: Option, value: Any) -> Iterator[str]:  # noqa: ANN401 - of whichever type the option is
    if value is None or value == option.default or (option.default == () and not value):
        return
    if option.kind == "flag":
        yield option.flag
    elif option.kind == "list":
        for each in value:
            yield f"{option.flag}={each}"
    else:
        yield f"{option.flag}={value}"
