"""OpenTelemetry: the spans of requests, and that nothing of it is loaded where nobody asks for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_runner.core.errors import UsageError
from llama_runner.gateway.tracing import tracing_from
from tests.gateway.conftest import TWO, Start, own_root

SERVE = """
import json, os, signal, sys, threading, urllib.request
PROVIDER
from llama_runner.gateway.main_process import serve

def ask(url, path, **headers):
    asked = {"messages": [{"role": "user", "content": "my PIN is 4711"}], "stream": True}
    body = {"model": "one", "max_tokens": 3, **asked}
    data = json.dumps(body).encode() if path.startswith("/v1") else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, headers)) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        error.close()

def use(url):
    try:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        ask(url, "/v1/chat/completions", traceparent=parent, **{"X-Request-Id": "first"})
        ask(url, "/v1/chat/completions", traceparent="nonsense", **{"X-Request-Id": "second"})
        ask(url, "/nowhere", **{"X-Request-Id": "third"})
        ask(url, "/health")
    finally:
        os.kill(os.getpid(), signal.SIGTERM)

def show(line):
    said = json.loads(line)
    if said.get("event") == "gateway_ready":
        threading.Thread(target=use, args=said["urls"]).start()

serve(sys.argv[1:], show)
RESULT
"""
IN_MEMORY = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""
NO_TRACES = {name: "" for name in os.environ if name.startswith("OTEL_")}


def served(tmp_path: Path, binaries: Path, provider: str, result: str) -> Any:
    """Run a gateway in a process of its own, send requests to it, and return what it printed at its end."""
    config = tmp_path / "llama-runner.toml"
    config.write_text(TWO, encoding="utf-8")
    code = SERVE.replace("PROVIDER", provider).replace("RESULT", result)
    words = ["--config", str(config), "--root", str(own_root(tmp_path, binaries)), "--listen", "127.0.0.1:0"]
    environment = {**os.environ, **NO_TRACES}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_a_request_has_spans_for_itself_the_queue_the_load_and_the_process(tmp_path: Path, binaries: Path) -> None:
    spans = served(
        tmp_path,
        binaries,
        IN_MEMORY,
        "print(json.dumps([json.loads(span.to_json(None)) for span in exporter.get_finished_spans()]))",
    )
    by_id = {span["context"]["span_id"]: span for span in spans}
    roots = {span["attributes"]["llama_runner.request_id"]: span for span in spans if span["kind"] == "SpanKind.SERVER"}
    assert roots.keys() == {"first", "second", "third"}, "GET /health has none"

    def children(parent: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {span["name"]: span for span in spans if span["parent_id"] == parent["context"]["span_id"]}

    first, second, third = (roots[name] for name in ("first", "second", "third"))
    assert first["name"] == second["name"] == "POST /v1/chat/completions"
    assert (first["context"]["trace_id"], first["parent_id"]) == (
        "0x0af7651916cd43dd8448eb211c80319c",
        "0xb7ad6b7169203331",
    )
    assert second["parent_id"] is None
    assert (third["status"]["status_code"], third["attributes"]["error.type"]) == ("ERROR", "not_found")
    assert children(first).keys() == children(second).keys() == {"queue", "upstream"}
    assert children(third) == {}
    assert children(children(first)["queue"]).keys() == {"load"}
    assert children(children(second)["queue"]) == {}, "it was loaded by then"
    upstream = children(first)["upstream"]
    assert (upstream["kind"], upstream["attributes"]["http.response.status_code"]) == ("SpanKind.CLIENT", 200)
    assert first["attributes"]["gen_ai.request.model"] == "one"
    assert first["attributes"]["gen_ai.usage.output_tokens"] == 3
    assert first["attributes"]["llama_runner.client"] == "loopback"
    for span in spans:
        assert span["start_time"] <= span["end_time"]
        if (parent := by_id.get(span["parent_id"])) is not None:
            assert parent["start_time"][:19] <= span["start_time"][:19] <= span["end_time"][:19] <= parent["end_time"]
    assert "4711" not in json.dumps(spans)


def test_nothing_of_it_is_loaded_where_nobody_asks_for_traces(tmp_path: Path, binaries: Path) -> None:
    result = 'print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry")]))'
    assert served(tmp_path, binaries, "", result) == []


def test_an_exporter_is_chosen_by_the_variables_of_opentelemetry(gateway: Start) -> None:
    running = gateway(TWO, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="mine")
    assert running.chat("one")[0] == 200
    running.process.terminate()
    running.until("gateway_stopped")
    text = "".join(str(line.get("text", "")) for line in running.lines)
    assert '"name": "POST /v1/chat/completions"' in text
    assert '"service.name": "mine"' in text


def test_an_exporter_that_is_not_installed_is_a_warning_with_the_way_out(gateway: Start) -> None:
    running = gateway(TWO, OTEL_TRACES_EXPORTER="nowhere")
    [warned] = [line for line in running.lines if line.get("event") == "warned"]
    assert "'nowhere'" in warned["text"]
    assert "llama-runner[traces]" in warned["hint"]
    assert running.get("/health")[0] == 200


@pytest.mark.parametrize(
    "environment",
    [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"}],
)
def test_no_traces_are_made_where_the_variables_say_so(environment: dict[str, str]) -> None:
    assert tracing_from(environment) is None


def test_an_endpoint_alone_asks_for_otlp() -> None:
    with pytest.raises(UsageError, match="otlp_proto_grpc"):
        tracing_from({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_nothing_of_a_client_but_the_type_of_its_body_is_sent_on(
    gateway: Start, fake_programs: Path, tmp_path: Path
) -> None:
    fake = {"sentence": "hello", "headers": str(tmp_path / "headers.json")}
    running = gateway(f'[models.one]\ndemo = true\nbinaries = "{fake_programs}"\n', GGML_FAKE=json.dumps(fake))
    told = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "congo=t61rcWkgMzE",
        "baggage": "userId=alice",
        "Cookie": "session=secret",
        "Authorization": "Bearer of-the-client",
    }
    assert running.post("/v1/chat/completions", {"model": "one", "messages": []}, **told)[0] == 200
    headers = json.loads((tmp_path / "headers.json").read_text(encoding="utf-8"))
    names = [line.partition(":")[0] for line in headers]
    assert sorted(names) == ["Authorization", "Connection", "Content-Length", "Content-Type", "Host"]
    assert "of-the-client" not in str(headers)
