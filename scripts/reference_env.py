"""Makes the environment of llama.cpp's own converter, as a conversion by it does, and prints its Python's path.

    python scripts/reference_env.py ROOT

The tests then find it by two variables, the second of which is the tree that it was made for:

    LLAMA_RUNNER_REFERENCE_PYTHON=<the path printed> LLAMA_RUNNER_REFERENCE_TREE=ROOT/vendor/llama.cpp-… pytest

Where it cannot be had, most often since there is no torch for the CPU in the package index, the reason is told and the
status is that of the error.
"""

from __future__ import annotations

import sys
from pathlib import Path

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.core.plan import Snapshot
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.request.binaries_graph import tree_of
from llama_runner.steps.official_converter_environment import converter_environment, python_of
from llama_runner.store import layout
from llama_runner.store.artifacts import Store
from llama_runner.store.local_sources import LocalSources


def main(root: Path) -> int:
    """Make or find the environment; print the path of its Python."""
    store = Store(root, lambda event: print(event.to_json(), file=sys.stderr))
    step = converter_environment(tree_of(load_pin(layout.pin_file())))
    observer = Observer(store, LocalSources(store, remember=True, inspect=lambda _directory: None))
    try:
        executor = Executor(store, observer, lambda _event: None, lock_timeout=1800)
        outcome = executor.execute(observer.plan((step,), Snapshot()))
    except LlamaRunnerError as error:
        print(f"{error}\nhint: {error.hint}", file=sys.stderr)
        return error.code
    print(python_of(store.path(outcome.places[step])))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
