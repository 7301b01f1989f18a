"""Asking a hub that fails, and what the user gets to see of it."""

from __future__ import annotations

import traceback

import pytest

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.sources.hub.client import HubClient, RequestLimits
from llama_runner.sources.hub.endpoint_and_token import Access

TOKEN = "hf_ThisMustNotBeSeenAnywhere"
REPO = "acme/tiny"
COMMIT = "c" * 40


def asked(
    endpoint: str, token: str | None = TOKEN, revision: str | None = None, *, silence: float = 10.0
) -> LlamaRunnerError:
    """Return the error that asking what is at a revision ends with, its traceback searched for the token."""
    access = Access(endpoint, token, "HF_TOKEN" if token else "none")
    limits = RequestLimits(tries=1, read=silence, connect=silence)
    with pytest.raises(LlamaRunnerError) as caught:
        HubClient(access, limits=limits).pin(REPO, revision)
    error = caught.value
    shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert TOKEN not in f"{shown} {error!r} {error} {error.hint} {vars(error)}"
    assert error.hint
    assert not error.hint.endswith(".")
    return error
