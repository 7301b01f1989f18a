"""llama.cpp's own server tests against a server that runs, and what they have to say differently to the gateway.

Their client names no model and uses llama-server's own paths. The gateway serves many models: this module is a plugin
of pytest in the process of those tests, which adds the name to each request and sends llama-server's own paths to
``/models/NAME/…``. Nothing else of the requests and nothing of the answers changes. Tests with a port of their own get
that of the server too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree as ET

NAME = "tinyllama-2"
FILES = ("basic", "chat_completion", "compat_anthropic", "compat_oai_responses", "stream", "tokenize", "completion")
LEFT_OUT = {
    "compat_gcp": "starts a server with other environment variables",
    "ctx_shift": "starts a server with context shift",
    "embedding": "downloads a model for embeddings",
    "ignore_eos": "starts a server with other options",
    "infill": "downloads a model that fills in the middle",
    "kv_keep_only_active": "restarts the server with other options in each test",
    "lora": "downloads an adapter",
    "mcp_servers": "starts a server with tools; the gateway offers none of llama-server's",
    "metrics": "of one server; the gateway has its own at /metrics, and those of a model at /models/NAME/metrics",
    "proxy": "starts a server that fetches addresses for clients; the gateway does not",
    "rerank": "downloads a model that ranks",
    "router": "of llama.cpp's router: restated in test_router_behaviour",
    "security": "starts servers with keys; the keys of the gateway have tests of their own",
    "sleep": "starts a server that sleeps; the gateway stops idle models instead",
    "slot_save": "restores slots by number; the gateway does not offer slots",
    "speculative": "downloads a draft model",
    "template": "starts a server for each chat template",
    "tool_call": "downloads models that call tools",
    "tools_builtin": "starts a server with tools; the gateway offers none of llama-server's",
    "vision_api": "downloads a model that sees",
}
"""Files of tests that are not run, with the reason."""
LEFT_OUT_TESTS = {
    "test_basic.py::test_load_split_model": "downloads a model",
    "test_compat_anthropic.py::test_anthropic_tool_result_with_image": "expects 500 for an image; the gateway says 400",
    "test_compat_anthropic.py::test_anthropic_vision_format_accepted": "expects 500 for an image; the gateway says 400",
    "test_compat_anthropic.py::test_anthropic_vision_base64_with_multimodal_model": "downloads a model",
    "test_stream.py::test_stream_resume_and_stop_with_slashed_model_name": "the gateway does not resume streams",
    "test_stream.py::test_stream_stop_during_model_load": "of llama.cpp's router",
    "test_stream.py::test_stream_resumes_after_reload_during_model_load": "of llama.cpp's router",
}
"""Tests in other files that are not run, with the reason."""
_OWN = ("completion", "completions_raw", "props", "slots", "infill", "apply-template", "embedding", "metrics")
_V1 = ("chat/completions", "completions", "responses", "embeddings", "rerank")


def tests_in(source_tree: Path) -> Path:
    """Return the directory of the tests in a source tree of llama.cpp."""
    return source_tree / "tools" / "server" / "tests"


def run(source_tree: Path, directory: Path, port: int, *, gateway: bool) -> dict[str, str]:
    """Run the tests against a server and return the outcome of each: ``passed``, ``failed`` or ``skipped``."""
    copy = directory / "tests"
    if not copy.exists():
        shutil.copytree(tests_in(source_tree), copy)
        (directory / "wget.py").write_text("def download(*_, **__): raise OSError('no downloads')\n", encoding="utf-8")
    report = directory / f"{'gateway' if gateway else 'by-hand'}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-p", "tests.gateway.llama_cpp_suite", f"--junit-xml={report}"]
    command += [*(f"unit/test_{name}.py" for name in FILES), *(f"--deselect=unit/{name}" for name in LEFT_OUT_TESTS)]
    paths = [str(directory), str(copy), str(Path(__file__).parents[2])]
    environment = {**os.environ, "DEBUG_EXTERNAL": "1", "PORT": str(port), "PYTHONPATH": os.pathsep.join(paths)}
    environment |= {"AT_GATEWAY": "1"} if gateway else {}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise AssertionError(done.stdout[-3000:] + done.stderr[-3000:])
    outcomes = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "skipped" if "skipped" in kinds else "failed" if kinds & {"failure", "error"} else "passed"
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return outcomes


def path_at_gateway(path: str) -> str:
    """Return the path of the gateway for a path of llama-server."""
    plain = path.strip("/")
    return f"/models/{NAME}/{plain}" if plain in _OWN else f"/v1/{plain}" if plain.startswith(_V1) else path


def pytest_configure() -> None:
    """Direct the clients of llama.cpp's tests to the server. Only for the process that runs them."""
    import requests

    send = requests.Session.request

    def request(self: Any, method: str, url: str, **more: Any) -> Any:
        parts = urlsplit(url)
        if parts.hostname in ("127.0.0.1", "localhost"):
            parts = parts._replace(netloc=f"{parts.hostname}:{os.environ['PORT']}")
            if "AT_GATEWAY" in os.environ:
                parts = parts._replace(path=path_at_gateway(parts.path))
                if isinstance(more.get("json"), dict):
                    more["json"] = {**more["json"], "model": NAME}
        return send(self, method, urlunsplit(parts), **more)

    requests.Session.request = request  # type: ignore[assignment, method-assign]
