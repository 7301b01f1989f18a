"""Units of systemd for declared models, without paths of the machine that writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.generate.container import checked_ports
from llama_runner.generate.errors import new_key_error
from llama_runner.generate.quoting import check_text
from llama_runner.request.request_as_command_line import run_arguments
from llama_runner.serving import systemd_and_launchd_units
from llama_runner.store.layout import safe_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.generate.container import RunCall


def systemd(models: Sequence[RunCall], *, program: str, user: str | None) -> dict[str, str]:
    """Return the units by file name: of the user who starts them or, with ``user``, of the system."""
    ports = checked_ports(models)
    files: dict[str, str] = {}
    for model in models:
        if model.server.api_key is not None:
            raise new_key_error(model.name)
        server = model.server.replace(port=ports[model.name])
        words = run_arguments(model.source, server, model.keywords, model.life_cycle)
        for word in (model.name, program, *words):
            check_text(word)
        name = f"llama-runner-{safe_name(model.name)}.service"
        files[name] = systemd_and_launchd_units.systemd(model.name, [program, "run", *words], None, user=user)
    return files
