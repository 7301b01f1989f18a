"""Makes the launch spec of a prepared model from the options of its server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_runner.serving.llama_server.launch_spec import DEFAULT_CONTEXT, ServerOptions, ServerSpec, spec_of
from llama_runner.serving.llama_server.served_task import check_text, purpose_words
from llama_runner.system import hardware

if TYPE_CHECKING:
    from llama_runner.request.result_types import Prepared


def spec_for(prepared: Prepared, options: ServerOptions | None) -> ServerSpec:
    """Return the server to start for a prepared model."""
    options = options or ServerOptions()
    if options.inherit_environment:
        from llama_runner.serving.llama_server.environment_variables import with_variables  # noqa: PLC0415 - only with --llama-env

        options = with_variables(options, os.environ)
    trained = prepared.facts.get("context_length")
    if options.purpose == "text":
        check_text(prepared.alias, prepared.facts)
    else:
        context = options.ctx_size or min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
        words = purpose_words(options, prepared.facts, os.environ, context)
        options = options.replace(extra=(*words, *options.extra)) if words else options
    return spec_of(
        options,
        binary=prepared.server,
        model=prepared.model,
        projector=prepared.projector,
        adapters=prepared.adapters,
        adapter_names=prepared.adapter_names,
        adapter_scales=prepared.adapter_scales,
        alias=prepared.alias,
        trained_context=trained,
        cores=hardware.physical_cores(),
    )
