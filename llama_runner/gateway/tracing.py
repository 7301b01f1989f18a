"""OpenTelemetry traces of requests. Nothing of OpenTelemetry is imported unless somebody asks for traces.

Traces are asked for by the variables of OpenTelemetry (``OTEL_TRACES_EXPORTER``, ``OTEL_EXPORTER_OTLP_ENDPOINT``), or
by a program that has set a provider of its own in this process. The spans of a request are made when it has ended, from
times that are taken anyway. No prompt, answer or key is in them. ``traceparent`` of a request makes its trace part of
that of the client; it is sent on to nobody.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import UsageError
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.gateway.request_log_entry import Exchange

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_FLUSH_MS = 2000
_UNTRACED = ("/health", "/metrics")


def no_exporter_error(name: str, why: str) -> UsageError:
    """Return the error for traces that are asked for and cannot be exported."""
    return UsageError(
        f"traces are asked for and cannot be exported by {name!r}: {why}",
        hint="pip install 'llama-runner[traces]', or set OTEL_TRACES_EXPORTER=none",
    )


def tracing_from(environment: Mapping[str, str]) -> Tracing | None:
    """Return what makes spans; None where nobody asks for them. Raises ``UsageError`` without a usable exporter."""
    name = environment.get(_EXPORTER, "").strip()
    is_asked = bool(name) or any(environment.get(each) for each in _ENDPOINTS)
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or name == "none":
        return None
    if "opentelemetry.sdk.trace" in sys.modules:
        from opentelemetry import trace  # noqa: PLC0415 - loaded by then

        if isinstance(provider := trace.get_tracer_provider(), sys.modules["opentelemetry.sdk.trace"].TracerProvider):
            return Tracing(provider)
    return Tracing(_provider(name or "otlp", environment)) if is_asked else None


def _provider(name: str, environment: Mapping[str, str]) -> Any:  # noqa: ANN401 - of a package that may not be there
    from importlib.metadata import entry_points  # noqa: PLC0415 - only where it is asked for

    if name == "otlp":
        name = _OTLP.get(environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", ""), "otlp_proto_http")
    found = next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
    if found is None:
        raise no_exporter_error(name, "no package that is installed has it")
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - only where it is asked for
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        exporter = found.load()()
    except Exception as error:  # a foreign package, configured by variables
        raise no_exporter_error(name, f"{type(error).__name__}: {error}") from error
    names_itself = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    own = {"service.version": __version__} | ({} if names_itself else {"service.name": "llama-runner"})
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Tracing:
    """Makes the spans of requests: the request, and in it the queue, the load, and what llama-server was sent."""

    def __init__(self, provider: Any) -> None:  # noqa: ANN401 - of a package that may not be there
        from opentelemetry import trace  # noqa: PLC0415 - only where it is asked for
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider, self._trace = provider, trace
        self._tracer = provider.get_tracer("llama_runner.gateway", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def record(
        self, exchange: Exchange, *, method: str, route: str, status: int, seconds: float, headers: Mapping[str, str]
    ) -> None:
        """Make the spans of a request that has ended. ``headers`` are those of a client that may be trusted."""
        if route in _UNTRACED:
            return
        kinds = self._trace.SpanKind

        def moment(monotonic: float) -> int:
            return int((exchange.began_at + monotonic - exchange.began) * 1e9)

        carrier = {name.lower(): value for name, value in headers.items() if name.lower() in self._propagator.fields}
        began = moment(exchange.began)
        root = self._tracer.start_span(
            f"{method} {route}",
            context=self._propagator.extract(carrier),
            kind=kinds.SERVER,
            start_time=began,
            attributes=_attributes(exchange, method, route, status),
        )
        if status >= 500 or exchange.error is not None:  # noqa: PLR2004 - an error of the server
            root.set_status(self._trace.Status(self._trace.StatusCode.ERROR, exchange.error or ""))
        within = self._trace.set_span_in_context(root)
        if (lease := exchange.lease) is not None:
            ready = moment(lease.asked + lease.waited)
            queue = self._tracer.start_span("queue", context=within, start_time=moment(lease.asked))
            if lease.loading:
                start = moment(lease.asked + lease.waited - lease.loading)
                inner = self._trace.set_span_in_context(queue)
                self._tracer.start_span("load", context=inner, start_time=start).end(ready)
            queue.end(ready)
            for call in lease.calls:
                facts: dict[str, Any] = {"http.request.method": call.method, "url.path": call.path}
                facts |= {} if call.status is None else {"http.response.status_code": call.status}
                span = self._tracer.start_span(
                    "upstream", context=within, kind=kinds.CLIENT, start_time=moment(call.began), attributes=facts
                )
                span.end(moment(call.ended))
        root.end(began + int(seconds * 1e9))

    def close(self) -> None:
        """Export what was not exported yet; blocks for a short time."""
        self._provider.force_flush(_FLUSH_MS)


def _attributes(exchange: Exchange, method: str, route: str, status: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "llama_runner.request_id": exchange.request_id,
        "llama_runner.client": exchange.client,
    }
    if exchange.model is not None:
        found["gen_ai.request.model"] = exchange.model
    if exchange.error is not None:
        found["error.type"] = exchange.error
    kinds = {"prompt": "input", "generated": "output"}
    return found | {f"gen_ai.usage.{kinds[kind]}_tokens": count for kind, count in exchange.tokens.items()}
