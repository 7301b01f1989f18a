"""What the commands about the store cost with a thousand models, against `python -c pass` in the same run.

    python benchmarks/store.py [--models 1000] [--rounds 5] [--verify-size 4096] [--prepared DIR] [--only PART]

Lays synthetic records of models into a temporary root. Half of them are downloaded, in two quantizations; half are
converted from eight files on this machine and quantized twice, and of the intermediate only the record is left. There
are as many logs and locks. Prints one JSON document; times are medians in seconds.

`scale`: the CPU seconds of `status`, `plan`, `models list` and a warm `run` (until its server is healthy, without the
server) in stores of 10, 1,000 and 10,000 artifacts, which are hard links, and of the demo model with its programs.
These come from `--prepared`, a root in which `prepare --demo` was run; by default the repository.

`verify` reads eight files of `--verify-size` MiB in all. A program that does nothing but hash the same files with as
many threads is measured in turn with it; both begin with files that the system has not cached.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from warm import end, free_port, until_healthy

from llama_runner.system.hardware import physical_cores

HASH = """
import hashlib, os, sys
from concurrent.futures import ThreadPoolExecutor
def read(name):
    with open(name, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        sha, block = hashlib.sha256(), memoryview(bytearray(1 << 20))
        while count := file.readinto(block):
            sha.update(block[:count])
        return sha.hexdigest()
with ThreadPoolExecutor(int(sys.argv[1])) as pool:
    list(pool.map(read, sys.argv[2:]))
"""
LEAST_VERIFY_RATE = 0.8
GOALS = {"models_list": 12.0, "gc_dry_run": 20.0}
SIZES = (10, 1_000, 10_000)
STATUS_GOAL = 8.0
"""Of a thousand artifacts, in times of `python -c pass`."""
MOST_GROWTH = 1.1
"""Of a warm `run`, from the smallest store to any other."""
COMMANDS = {
    "help": ["models", "--help"],
    "models_list": ["models", "list"],
    "models_list_json": ["models", "list", "--all", "--json"],
    "gc_dry_run": ["gc"],
    "models_show": ["models", "show", "model-7"],
}


def lay_models(root: Path, count: int) -> None:
    """Write the records, and payloads of a few bytes which are hard links to one, of models."""
    payload = root / "none"
    for number in range(count):
        commit = hashlib.sha256(str(number).encode()).hexdigest()[:40]
        name = f"org__model-{number}" if number % 2 else f"local__model-{number}"
        directory = root / "models" / "gguf" / f"{name}__{commit[:12]}"
        directory.mkdir(parents=True)
        artifacts = {}
        names = ("model.gguf", "model.q4_k_m.gguf", "model.q8_0.gguf")
        for name in names[number % 2 :]:
            if name != "model.gguf":
                if payload.exists():
                    os.link(payload, directory / name)
                else:
                    (directory / name).write_bytes(b"GGUF")
                    payload = directory / name
            artifacts[name] = record(name, commit, number)
        (directory / ".state.json").write_text(json.dumps({"schema": 1, "artifacts": artifacts}, indent=1))
    for name in ("logs", ".llama_runner/locks"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{hashlib.sha256(f'{name}{number}'.encode()).hexdigest()[:16]}.lock").touch()


def record(name: str, commit: str, number: int) -> dict[str, Any]:
    """Return the record of one file, of the size that records have."""
    digest = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
    files = {f"file-{index}.json": {"digest": f"sha256:{digest}", "stamp": {"size": index}} for index in range(8)}
    source: dict[str, Any] = {"kind": "hf", "ref": f"org/model-{number}", "revision": commit}
    if not number % 2:
        source = {"kind": "safetensors", "ref": f"/models/model-{number}", "revision": commit[:12], "files": files}
    return {
        "key": f"k1:{digest}",
        "recipe": {"step": "quantize", "version": 1, "params": {"type": name.split(".")[1]}, "inputs": {}},
        "noted": {"tool": {"digest": f"tree1:{digest}"}},
        "output": {"digest": f"sha256:{digest}", "bytes": 4, "stamp": {"size": 4, "mtime_ns": 0, "inode": 1}},
        "facts": {"architecture": "llama", "quantization": "q4_k_m", "context_length": 4096},
        "source": source,
        "made": {"at": "2026-01-01T00:00:00Z", "seconds": 1.5, "kept": name != "model.gguf", "by": "llama_runner"},
    }


def lay_payloads(root: Path, size: int) -> list[Path]:
    """Write models of random bytes with true records; return their files."""
    paths = []
    for number in range(8):
        commit = hashlib.sha256(str(number).encode()).hexdigest()[:40]
        directory = root / "models" / "gguf" / f"org__model-{number}__{commit[:12]}"
        directory.mkdir(parents=True)
        paths.append(directory / "model.gguf")
        sha = hashlib.sha256()
        with paths[-1].open("wb") as file:
            for _ in range(size // 8):
                block = os.urandom(1 << 20)
                sha.update(block)
                file.write(block)
            os.fsync(file.fileno())
        found = record("model.q8_0.gguf", commit, number)
        found["output"] |= {"digest": f"sha256:{sha.hexdigest()}", "bytes": size // 8 << 20}
        found["facts"] = {}
        recipe = json.dumps(found["recipe"], sort_keys=True, separators=(",", ":"))
        found["key"] = "k1:" + hashlib.sha256(recipe.encode()).hexdigest()
        (directory / ".state.json").write_text(json.dumps({"schema": 1, "artifacts": {"model.gguf": found}}))
    return paths


def verify_rate(root: Path, runner: str, size: int, rounds: int) -> dict[str, Any]:
    """Return how fast `verify` reads, and how fast the same files are hashed by a program that does nothing else."""
    paths, workers = lay_payloads(root, size), physical_cores()
    rates: dict[str, list[float]] = {"verify": [], "hash": []}
    for _ in range(rounds):
        rates["hash"].append(size / took([sys.executable, "-c", HASH, str(workers), *map(str, paths)]))
        rates["verify"].append(size / took([runner, "verify", "--root", str(root)]))
    ratio = statistics.median(a / b for a, b in zip(rates["verify"], rates["hash"], strict=True))
    return {
        "mib": size,
        "workers": workers,
        "mib_per_s": {name: round(statistics.median(values)) for name, values in rates.items()},
        "ratios": [round(a / b, 2) for a, b in zip(rates["verify"], rates["hash"], strict=True)],
        "median_ratio": round(ratio, 2),
        "goal": LEAST_VERIFY_RATE,
        "met": ratio >= LEAST_VERIFY_RATE,
    }


def scale(prepared: Path, runner: str, rounds: int) -> dict[str, Any]:
    """Return what commands cost in stores of several sizes, in times of `python -c pass`."""
    costs: dict[str, dict[str, list[float]]] = {str(size): {} for size in SIZES}
    passed = []
    with tempfile.TemporaryDirectory(dir=prepared, prefix=".store-") as temporary:  # hard links need one file system
        roots = {str(size): Path(temporary, str(size)) for size in SIZES}
        for size, root in roots.items():
            lay_models(root, int(size) * 2 // 5)  # of two models, five artifacts
            for part in ("bins", "models"):
                shutil.copytree(prepared / part, root / part, symlinks=True, dirs_exist_ok=True, copy_function=os.link)
            subprocess.run([runner, "prepare", "--demo", "--root", str(root)], check=True, capture_output=True)
        for _ in range(rounds):
            passed.append(cpu_of([sys.executable, "-c", "pass"]))
            for size, root in roots.items():
                for name, words in {
                    "status": ["status"],
                    "plan": ["plan", "--demo"],
                    "models_list": ["models", "list"],
                }.items():
                    costs[size].setdefault(name, []).append(cpu_of([runner, *words, "--root", str(root)]))
                costs[size].setdefault("run", []).append(cpu_of_start(runner, root))
    unit = statistics.median(passed)
    ratios = {
        size: {name: round(statistics.median(values) / unit, 2) for name, values in found.items()}
        for size, found in costs.items()
    }
    growth = max(found["run"] for found in ratios.values()) / ratios[str(SIZES[0])]["run"]
    return {
        "cpu_per_python_pass": ratios,
        "python_pass_cpu_s": round(unit, 4),
        "status_of_1000": {"goal": STATUS_GOAL, "met": ratios["1000"]["status"] <= STATUS_GOAL},
        "growth_of_run": {"ratio": round(growth, 2), "goal": MOST_GROWTH, "met": growth <= MOST_GROWTH},
    }


def cpu_of(words: list[str]) -> float:
    """Return the CPU seconds of a process and those that it waited for."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def cpu_of_start(runner: str, root: Path) -> float:
    """Return the CPU seconds of `run --demo` until its server is healthy, without those of the server. Reads /proc."""
    port = free_port()
    _, process = until_healthy([runner, "run", "--demo", "--root", str(root), "--port", str(port)], port)
    tasks = Path("/proc", str(process.pid), "task").glob("*/schedstat")
    used = sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    end(process)
    return used


def took(words: list[str]) -> float:
    """Return how long a process takes."""
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--verify-size", type=int, default=4096, metavar="MIB")
    parser.add_argument("--prepared", type=Path, default=Path(__file__).parents[1], metavar="DIR")
    parser.add_argument("--only", choices=["scale"])
    given = parser.parse_args()
    runner = str(Path(sys.executable).with_name("llama-runner"))
    package = Path(__file__).parents[1] / "llama_runner"
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(package)], check=True)
    scaled = scale(given.prepared, runner, given.rounds)
    if given.only:
        print(json.dumps({"benchmark": "store", "rounds": given.rounds, "scale": scaled}, indent=1))
        return
    times: dict[str, list[float]] = {"python_pass": [], **{name: [] for name in COMMANDS}}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        lay_models(root, given.models)
        for _ in range(given.rounds):
            times["python_pass"].append(took([sys.executable, "-c", "pass"]))
            for name, words in COMMANDS.items():
                rest = [] if name == "help" else ["--root", os.fspath(root)]
                times[name].append(took([runner, *words, *rest]))
    with tempfile.TemporaryDirectory() as temporary:
        verified = verify_rate(Path(temporary), runner, given.verify_size, given.rounds)
    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: round(median[name] / median["python_pass"], 2) for name in COMMANDS}
    result = {
        "benchmark": "store",
        "models": given.models,
        "rounds": given.rounds,
        "median_s": {name: round(value, 4) for name, value in median.items()},
        "per_python_pass": ratios,
        "goals": {name: {"goal": goal, "met": ratios[name] <= goal} for name, goal in GOALS.items() if name in ratios},
        "verify": verified,
        "scale": scaled,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
