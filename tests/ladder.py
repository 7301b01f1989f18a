"""The order of the package's parts."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "llama_runner"

LADDER: tuple[frozenset[str], ...] = (
    frozenset({"core", "version"}),
    frozenset({"demo"}),
    frozenset({"system"}),
    frozenset({"store"}),
    frozenset({"engine", "remote"}),
    frozenset({"sources", "convert", "llama_cpp", "client", "sessions"}),
    frozenset({"serving"}),
    frozenset({"fidelity", "training"}),
    frozenset({"steps"}),
    frozenset({"request"}),
    frozenset({"benchmark", "config", "doctor", "library", "recommend"}),
    frozenset({"generate", "web"}),
    frozenset({"api", "api_preparation", "api_management", "status_report"}),
    frozenset({"gateway"}),
    frozenset({"cli", "pytest_plugin", "pytest_servers", "server"}),
    frozenset({"run_server", "__main__"}),
)
"""From the bottom up. A package imports only from those below it; packages on one rung do not import each other.

Modules that stand alone (``api`` and ``status_report``, the two of the pytest plugin) may import their neighbours.
"""
