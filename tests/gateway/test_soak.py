"""A gateway under random load and faults; ``benchmarks/gateway_soak.py`` does the same for ten minutes."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import Start
from tests.gateway.soak import CONFIG, Soak


@pytest.mark.slow
def test_random_load_and_faults_leave_nothing_behind(gateway: Start) -> None:
    running = gateway(CONFIG.format(size=512))
    soak = Soak(running, seed=16)
    soak.run(seconds=12, pause=4)
    assert soak.wrong == []
    first, last = soak.states[0], soak.states[-1]
    assert max(last["processes"], first["processes"]) <= 1, "at most the one that waits to become the next server"
    assert last["files"] <= first["files"] + 2
    assert last["threads"] <= first["threads"] + 2
    assert last["resident_kb"] - first["resident_kb"] < 8 << 10
    assert running.chat("one")[0] == 200
