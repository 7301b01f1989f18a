"""Times fetching 2 GB from a hub on loopback against `hf download`, with hashing on; measures memory and resuming.

    python benchmarks/hub.py [--rounds 3] [--size 2000000000] [--directory DIRECTORY]

The hub is a process of its own. Both contestants are whole processes, imports included: ours is a fresh interpreter
that calls `transfer`, which hashes what comes; theirs is the real `hf download --local-dir` over plain HTTP, which does
not. Rounds are interleaved and each begins with nothing left to be written. Then ours is killed at 90 % and run again.
Everything is made in a temporary directory and removed. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SHARDS = 4
KILLED_AT = 0.9
GOALS = {
    "single_throughput": ">= 0.9",
    "shards_throughput": ">= 0.9",
    "memory_mb": "<= 200",
    "fetched_again_mb": "<= 10 % + 64",
}
OURS = """
import json, sys
from pathlib import Path
from llama_runner.core.digest import file_digest
from llama_runner.sources.hub.endpoint_and_token import Access
from llama_runner.sources.hub.pins import Pin, RemoteFile
from llama_runner.sources.hub.download import transfer
url, repo, commit, directory, files = sys.argv[1:]
files = [RemoteFile(name, size, file_digest(sha256)) for name, size, sha256 in json.loads(files)]
transfer(files, pin=Pin(repo, commit, tuple(files)), directory=Path(directory), access=Access(url, None, "none"),
         on_progress=lambda done, total: None, notice=lambda what, text: None, cancelled=lambda: False)
"""


class Hub:
    """The hub for tests, as a process, and what it lists."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def listing(self, repo: str) -> tuple[str, list[tuple[str, int, str]]]:
        """Return a repository's commit and its files: name, size, SHA-256."""
        with urlopen(f"{self.url}/api/models/{repo}/revision/main?blobs=true") as answer:
            told = json.load(answer)
        return told["sha"], [(file["rfilename"], file["size"], file["lfs"]["sha256"]) for file in told["siblings"]]


@contextmanager
def hub(repositories: Path, log: Path) -> Iterator[Hub]:
    """Run it; its log of requests is complete afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakehub", str(repositories), "--log", str(log)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Hub(process, json.loads(process.stdout.readline())["hub"])
    finally:
        process.communicate()


def write_repositories(directory: Path, size: int) -> None:
    """Write ``bench/single`` and ``bench/shards``, of the same size: random bytes, 4 MB of them over and over."""
    noise = os.urandom(4_000_000)  # a child's peak of memory begins with ours
    names = {f"bench/shards/model-{index:05}-of-{SHARDS:05}.gguf": size // SHARDS for index in range(1, SHARDS + 1)}
    for name, length in {"bench/single/model.gguf": size, **names}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            left = length - file.write(b"GGUF" + name.encode())
            while left:
                left -= file.write(noise[:left])


def ours(at: Hub, repo: str, target: Path) -> list[str]:
    """Return the command that fetches a repository with ``transfer``."""
    commit, files = at.listing(repo)
    return [sys.executable, "-c", OURS, at.url, repo, commit, str(target), json.dumps(files)]


def theirs(at: Hub, repo: str, target: Path) -> list[str]:
    """Return the command that fetches it with huggingface_hub's command line."""
    commit, _ = at.listing(repo)
    return [
        str(Path(sys.executable).with_name("hf")),
        "download",
        repo,
        "--revision",
        commit,
        "--local-dir",
        str(target),
    ]


def timed(argv: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command to its end; return its seconds and the peak of its memory in MB."""
    os.sync()
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv[0]} ended with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e6


def race(at: Hub, repo: str, work: Path, rounds: int) -> dict[str, Any]:
    """Let both fetch a repository, in turn."""
    seconds: dict[str, list[float]] = {"ours": [], "hf": []}
    memory: dict[str, float] = {"ours": 0.0, "hf": 0.0}
    for _ in range(rounds):
        for who, command in (("ours", ours), ("hf", theirs)):
            target = work / who
            took, peak = timed(command(at, repo, target), environment(at, work / "home"))
            seconds[who].append(round(took, 3))
            memory[who] = max(memory[who], round(peak, 1))
            shutil.rmtree(target)
            shutil.rmtree(work / "home", ignore_errors=True)
    median = {who: statistics.median(values) for who, values in seconds.items()}
    return {
        "seconds": seconds,
        "median_s": median,
        "memory_mb": memory,
        "ratio": round(median["hf"] / median["ours"], 2),
    }


def environment(at: Hub, home: Path) -> dict[str, str]:
    """Return an environment in which hf asks this hub and nobody else, by plain HTTP."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    off = dict.fromkeys(["HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_UPDATE_CHECK", "HF_HUB_DISABLE_TELEMETRY"], "1")
    return {**kept, **off, "HF_ENDPOINT": at.url, "HF_HOME": str(home)}


def fetched_again(repositories: Path, work: Path, size: int) -> dict[str, Any]:
    """Kill ours at 90 % and run it again; return how much each run was sent."""
    repo, target = "bench/single", work / "killed"
    partial = target / "model.gguf.incomplete"
    with hub(repositories, work / "first.jsonl") as at:
        process = subprocess.Popen(ours(at, repo, target), cwd=ROOT)
        while process.poll() is None and not (partial.exists() and partial.stat().st_size >= KILLED_AT * size):
            time.sleep(0.001)
        process.kill()
        process.wait()
    here = partial.stat().st_size if partial.exists() else size
    with hub(repositories, work / "second.jsonl") as at:
        timed(ours(at, repo, target), environment(at, work / "home"))
    shutil.rmtree(target)
    return {"killed_at_mb": round(here / 1e6, 1), "fetched_again_mb": round(sent(work / "second.jsonl") / 1e6, 1)}


def sent(log: Path) -> int:
    """Return how many bytes of files a hub has sent."""
    return sum(json.loads(line)["bytes_sent"] for line in log.read_text().splitlines())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=2_000_000_000)
    parser.add_argument("--directory", type=Path, help="where to make the temporary directory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as temporary:
        work = Path(temporary)
        repositories = work / "repositories"
        write_repositories(repositories, given.size)
        with hub(repositories, work / "race.jsonl") as at:
            single = race(at, "bench/single", work, given.rounds)
            shards = race(at, "bench/shards", work, given.rounds)
        again = fetched_again(repositories, work, given.size)
    memory = max(single["memory_mb"]["ours"], shards["memory_mb"]["ours"])
    met = {
        "single_throughput": single["ratio"] >= 0.9,  # noqa: PLR2004
        "shards_throughput": shards["ratio"] >= 0.9,  # noqa: PLR2004
        "memory_mb": memory <= 200,  # noqa: PLR2004
        "fetched_again_mb": again["fetched_again_mb"] <= 0.1 * given.size / 1e6 + 64,
    }
    result = {
        "benchmark": "hub",
        "size_mb": given.size / 1e6,
        "rounds": given.rounds,
        "single": single,
        "shards": shards,
        "memory_mb": memory,
        **again,
        "goals": {name: {"goal": goal, "met": met[name]} for name, goal in GOALS.items()},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
