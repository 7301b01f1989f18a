"""Which servers a name means: for stop, restart, logs, infer, chat and bench alike."""

from __future__ import annotations

from typing import Any

import pytest

from llama_runner.serving.server_names import matching


def entry(alias: str, port: int, **more: Any) -> dict[str, Any]:
    return {"alias": alias, "url": f"http://127.0.0.1:{port}", "pid": port + 10000, **more}


SERVERS = [
    entry("demo:q4_k_m", 8080),
    entry("acme/Tiny-Model-GGUF:Q4_K_M", 8081),
    entry("acme/other:q8_0", 8082),
    entry("checkpoint-500:q4_k_m", 8083),
    entry("checkpoint-500:q4_k_m", 8084),
    entry("demo", 8085),
]


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("demo:q4_k_m", [8080]),
        ("demo", [8085]),
        ("18082", [8082]),
        ("http://127.0.0.1:8081", [8081]),
        ("http://127.0.0.1:8081/", [8081]),
        ("http://localhost:8081/v1", [8081]),
        ("127.0.0.1:8081", [8081]),
        ("localhost:8081", [8081]),
        ("acme/Tiny-Model-GGUF", [8081]),
        ("tiny-model-gguf", [8081]),
        ("tiny-model-gguf:q4_k_m", [8081]),
        ("Tiny", [8081]),
        ("acme/t", [8081]),
        ("acme", [8081, 8082]),
        ("checkpoint-500", [8083, 8084]),
        ("checkpoint-500:q4_k_m", [8083, 8084]),
        ("http://127.0.0.1:8084", [8084]),
        ("q4_k_m", []),
        ("8080", []),
        ("", []),
        ("http://[", []),
    ],
)
def test_13_03_a_name_a_model_a_beginning_a_url_and_a_process_id_mean_a_server(name: str, ports: list[int]) -> None:
    assert [int(each["url"].rpartition(":")[2]) for each in matching(SERVERS, name)] == ports
