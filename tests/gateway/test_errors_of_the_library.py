"""Errors of the library, as clients of the gateway get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.core.errors import StoreError
from llama_runner.gateway.errors import gateway_error
from llama_runner.store.errors import bad_root_error, disk_full_error


def test_a_full_disk_has_a_status_and_a_type_of_its_own() -> None:
    error = gateway_error(disk_full_error(Path("/models"), need=2, free=1))
    assert (error.status, error.kind) == (507, "disk_full")
    assert gateway_error(StoreError("it is locked")).status == 409


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (disk_full_error("/models"), "free some space, and run again: downloads and builds are resumed"),
        (bad_root_error(Path("/models")), "start the gateway with another root"),
        (StoreError("it is kept", hint="remove it with --force"), "remove it with force = true"),
    ],
)
def test_a_hint_says_what_a_client_can_do(error: StoreError, hint: str) -> None:
    assert gateway_error(error).hint == hint
