"""One of many processes that prepare, serve and free in one store at the same time.

``python -m tests.library.together ROOT WHAT NUMBER``: works until there is a file ``stop`` in the root, and writes how
many rounds it has done into a file of its own. What goes wrong ends it with a traceback.
"""

from __future__ import annotations

import sys
import time
from itertools import count
from pathlib import Path

from llama_runner import Runner, ServerOptions
from tests.e2e.serving import request

MODELS = ("acme/one:Q4_K_M", "acme/one:Q8_0", "acme/two:Q8_0", "acme/three:Q4_K_M")


def prepare(runner: Runner, number: int) -> None:
    """Fetch one model, and convert another."""
    runner.make(MODELS[number % len(MODELS)])
    if not number % 5:
        runner.make(demo=True, quantization="bf16")


def serve(runner: Runner, _number: int) -> None:
    """Serve a model, whose file must be there as long as the server runs."""
    with runner.serve(demo=True, quantization="q8_0", server=ServerOptions(port=0)) as server:
        before = server.spec.model.stat()
        for _ in range(20):
            assert request(server.url, "/health")[0] == 200
            now = server.spec.model.stat()
            assert (now.st_ino, now.st_size) == (before.st_ino, before.st_size), "the file that is served was replaced"


def free(runner: Runner, number: int) -> None:
    """Free everything that nothing needs at this moment, once others have made or served something since."""
    runner.gc(apply=True, older_than=0.0, max_size=1 if number % 2 else None)
    before = made(runner.root)
    while made(runner.root) == before and not (runner.root / "stop").exists():
        time.sleep(0.02)


def made(root: Path) -> list[str]:
    """Return how many rounds the others have done."""
    return [path.read_text() for kind in ("prepare", "serve") for path in sorted(root.glob(f"{kind}-*.rounds"))]


def verify(runner: Runner, _number: int) -> None:
    """Read everything; what comes and goes meanwhile is not damaged."""
    found = runner.models.verify("models/gguf") if any((runner.root / "models").glob("gguf/*/.state.json")) else None
    assert found is None or not found.problems, found


WORK = {"prepare": prepare, "serve": serve, "free": free, "verify": verify}


def main() -> None:
    root, what, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    runner = Runner(root)
    for done in count():
        if (root / "stop").exists():
            return
        WORK[what](runner, number + done)
        (root / f"{what}-{number}.rounds").write_text(str(done + 1))


if __name__ == "__main__":
    main()
