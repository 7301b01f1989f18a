"""What building costs: llama.cpp's documented commands against ours; cold, with a warm compiler cache, interrupted.

    python benchmarks/build.py --tree DIR [--only documented,ours,cached,interrupted,each] [--jobs N] [--cache DIR]
    python benchmarks/build.py --tree DIR --only each --measures all_measures,without_measuring_programs
    python benchmarks/build.py --tree DIR --only documented,ours --models demo.gguf,1b.gguf

``--tree`` is the pinned source tree, unpacked (``vendor/llama.cpp-b…`` of any root); it is copied first. Prints one
JSON document. CPU seconds are user and system time of all processes; the documented build, and ours where it is cold,
use no compiler cache. ``interrupted`` is ended with Ctrl-C at half of its objects and run again; its second part is
compared with ``ours``. ``each`` takes one measure away at a time, or adds one, which is a whole build for each, and
says what the objects of ours cost; ``--measures`` names some of them. ``--models`` names files that llama-bench of the
documented build and of ours read and continue in turns; the ratios are of the fastest of ``--rounds``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from llama_runner.llama_cpp import cmake  # noqa: E402
from llama_runner.llama_cpp.toolchain import PASSED_ENVIRONMENT, find_toolchain, tool_path  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GOALS = {"ours": 0.36, "cached": 0.10, "interrupted": 0.55}
"""CPU time at most: of the documented build, of the documented build, of a whole build of ours."""

SLOWEST = 0.99
"""Tokens per second of our llama-bench at least, of those of the documented build."""

READ_AND_WRITE = ("-p", "128", "-n", "64", "-r", "2", "-o", "json")
"""Arguments of llama-bench: a prompt of 128 tokens, then 64 tokens, twice each."""

PARTS = ("documented", "ours", "cached", "interrupted")

OURS = """
import os, shutil, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from llama_runner.core import events
from llama_runner.core.plan import Snapshot
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.store.artifacts import Store
from llama_runner.request import binaries_graph
from llama_runner.request.choose_binaries import BinariesOptions, find_program_facts
from llama_runner.store.local_sources import LocalSources
from llama_runner.llama_cpp.source_tree import open_tree

root, tree, jobs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def on_event(event):
    if isinstance(event, events.StepProgress) and event.unit == "objects":
        print(event.done, event.total, flush=True)
        if event.done == event.total:
            [log] = root.glob(".llama_runner/work/*/build/.ninja_log")
            shutil.copy(log, root / "ninja_log")

store = Store(root, on_event)
wanted = BinariesOptions(device="cpu", jobs=jobs)
facts = find_program_facts(wanted, environment=os.environ, store=store)
step = binaries_graph.build(wanted, facts).node.replace(tree=open_tree(tree))
observer = Observer(store, LocalSources(store, remember=False, inspect=lambda _: None))
Executor(store, observer, on_event, lock_timeout=10).execute(observer.plan([step], Snapshot()))
"""

FIRST = ("llama-server", "llama-quantize", "llama-fit-params")
"""The programs that the first answer takes: the demo model is quantized, and its memory is asked about."""

MEASURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "all_measures": ((), cmake.TARGETS),
    "without_measuring_programs": ((), FIRST),
    "with_the_earlier_file": ((f"-DCMAKE_PROJECT_INCLUDE={cmake.EARLIER_INCLUDE}",), cmake.TARGETS),
    "with_pages_as_numbers": (("-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES=",), cmake.TARGETS),
    "without_unity": (("-DCMAKE_UNITY_BUILD=OFF",), cmake.TARGETS),
    "with_warnings": (("-DLLAMA_ALL_WARNINGS=ON",), cmake.TARGETS),
    "with_every_target": (
        ("-DLLAMA_BUILD_TESTS=ON", "-DLLAMA_BUILD_EXAMPLES=ON", "-DLLAMA_BUILD_APP=ON"),
        ("all",),
    ),
    "with_optional_libraries": (("-DLLAMA_OPENSSL=ON", "-DGGML_OPENMP=ON"), cmake.TARGETS),
}


def measured(
    argv: list[Any],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    on_line: Callable[[int, str], None] | None = None,
) -> dict[str, float]:
    """Run a program to its end; the seconds of it and of all that it started. A status is for the caller to see."""
    started = time.perf_counter()
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(env), cwd=cwd
    )
    assert process.stdout is not None
    last: list[str] = []
    for line in process.stdout:
        last = [*last[-15:], line]
        if on_line is not None:
            on_line(process.pid, line)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and on_line is None:
        sys.exit(f"{argv[0]} exited with {process.returncode}\n{''.join(last)}")
    seconds = {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "wall_seconds": round(time.perf_counter() - started, 1),
    }
    print(Path(argv[0]).name, seconds, file=sys.stderr, flush=True)  # it takes half an hour in all
    return seconds


def clean(**more: str) -> dict[str, str]:
    """The environment of a build, without the user's flags; without a compiler cache unless ``more`` says so."""
    kept = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), **(more or {"CCACHE_DISABLE": "1"})}


def documented(tree: Path, folder: Path, jobs: int, kept: Path) -> dict[str, Any]:
    """``cmake -B build && cmake --build build --config Release``, in a copy of the tree; its programs are kept."""
    copy = folder / "documented"
    shutil.copytree(tree, copy, symlinks=True)
    program = tool_path("cmake")
    first = measured([program, "-B", "build"], env=clean(), cwd=copy)
    command = [program, "--build", "build", "--config", "Release", "-j", str(jobs)]
    second = measured(command, env=clean(), cwd=copy)
    shutil.move(copy / "build" / "bin", kept)
    shutil.rmtree(copy)
    return {name: round(first[name] + second[name], 1) for name in first}


def ours(tree: Path, root: Path, jobs: int, env: Mapping[str, str], *, stop_at: float | None = None) -> dict[str, Any]:
    """Our step, in a root with a copy of the tree in ``vendor``; ended with Ctrl-C at a part of the objects."""
    copy = root / "vendor" / tree.name
    if not copy.exists():
        shutil.copytree(tree, copy, symlinks=True)

    def on_line(pid: int, line: str) -> None:
        done, _, total = line.partition(" ")
        if done.isdigit() and int(done) >= float(total) * (stop_at or 2):
            os.kill(pid, signal.SIGINT)

    argv = [sys.executable, "-c", OURS, root, copy, str(jobs)]
    return measured(argv, env=env, on_line=None if stop_at is None else on_line)


def programs(root: Path) -> dict[str, str]:
    """Return the digests of what was built."""
    [directory] = (root / "bins").glob("*/*")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("llama-*")}


def inference(programs: Mapping[str, Path], models: list[Path], rounds: int) -> dict[str, Any]:
    """Return for each model how many tokens per second our llama-bench reads and writes, of the documented build's."""
    found: dict[str, Any] = {}
    for model in models:
        fastest: dict[tuple[str, str], float] = {}
        for _ in range(rounds):
            for name, directory in programs.items():
                argv = [str(directory / "llama-bench"), "-m", str(model), *READ_AND_WRITE]
                env = clean() | {"LD_LIBRARY_PATH": str(directory)}
                for each in json.loads(subprocess.run(argv, check=True, capture_output=True, env=env).stdout):
                    key = name, "write" if each["n_gen"] else "read"
                    fastest[key] = max(fastest.get(key, 0.0), each["avg_ts"])
        ratios = {way: round(fastest["ours", way] / fastest["documented", way], 3) for way in ("read", "write")}
        found[model.name] = {
            "tokens_per_s": {" ".join(key): round(value, 1) for key, value in fastest.items()},
            "ratios": ratios,
            "reached": min(ratios.values()) >= SLOWEST,
        }
    return found


def costliest(log: Path, count: int = 12) -> dict[str, float]:
    """Return the objects that took longest, in seconds, as Ninja noted them, and the sum of all."""
    lines = [line.split("\t") for line in log.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    seconds = {words[3]: (int(words[1]) - int(words[0])) / 1000 for words in lines}
    first = sorted(seconds, key=lambda name: -seconds[name])[:count]
    return {"all": round(sum(seconds.values()), 1), **{name: round(seconds[name], 1) for name in first}}


LAUNCHER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(child.pid, 0)
made = sys.argv[sys.argv.index("-o") + 1] if "-o" in sys.argv else "?"
with open(sys.argv[1], "a") as log:
    log.write(f"{used.ru_utime + used.ru_stime:.2f}\\t{used.ru_maxrss}\\t{made}\\n")
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a compiler, and writes down its CPU seconds, its memory in KiB and its object."""


def objects(log: Path, count: int = 40) -> dict[str, tuple[float, int]]:
    """Return the CPU seconds and MiB of the objects that cost most, and of all: their sum, their maximum."""
    lines = [line.split("\t") for line in log.read_text(encoding="utf-8").splitlines()]
    cost = {made: (float(seconds), int(memory) >> 10) for seconds, memory, made in lines if made.endswith(".o")}
    first = sorted(cost, key=lambda made: -cost[made][0])[:count]
    whole = (round(sum(seconds for seconds, _ in cost.values()), 1), max(memory for _, memory in cost.values()))
    return {"all": whole, **{made: cost[made] for made in first}}


def each(tree: Path, folder: Path, jobs: int, names: list[str]) -> dict[str, Any]:
    """Configure and build directly, with one measure less or more each time."""
    toolchain, found = find_toolchain(os.environ), dict[str, Any]()
    compilers = [("CMAKE_C_COMPILER", toolchain.c.path), ("CMAKE_CXX_COMPILER", toolchain.cxx.path)]
    (folder / "launcher.py").write_text(LAUNCHER, encoding="utf-8")
    for name in names:
        (options, targets), build, log = MEASURES[name], folder / name, folder / f"{name}.log"
        launcher = f"{sys.executable};-I;-S;{folder / 'launcher.py'};{log}"
        launchers = [f"-DCMAKE_{language}_COMPILER_LAUNCHER={launcher}" for language in ("C", "CXX")]
        given = (*cmake.definitions(backend="cpu", build=1, commit="unknown"), *options, *launchers)
        configure = cmake.configure_command(tool_path("cmake"), tool_path("ninja"), tree, build, compilers, given)
        first = measured(configure, env=clean())
        second = measured([tool_path("ninja"), "-C", build, "-j", str(jobs), *targets], env=clean())
        found[name] = {key: round(first[key] + second[key], 1) for key in first} | {"objects": objects(log)}
        shutil.rmtree(build)
    return found


def main() -> None:
    """Build as often as asked for, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--measures", default=",".join(MEASURES), help="what each builds")
    parser.add_argument("--models", default="", help="GGUF files for llama-bench of both builds, comma-separated")
    parser.add_argument("--rounds", type=int, default=5, help="of llama-bench")
    parser.add_argument("--cache", type=Path, help="directory of the compiler cache, to keep it")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    parts, jobs, tree = options.only.split(","), options.jobs, options.tree.resolve()
    result: dict[str, Any] = {"goals": GOALS, "jobs": jobs}
    with tempfile.TemporaryDirectory(prefix="llama-runner-bench-") as name:
        folder = Path(name)
        built: list[dict[str, str]] = []
        if "documented" in parts:
            result["documented"] = documented(tree, folder, jobs, folder / "documented-bin")
        if "ours" in parts:
            result["ours"] = ours(tree, folder / "ours", jobs, clean())
            result["costliest_objects"] = costliest(folder / "ours" / "ninja_log")
            built.append(programs(folder / "ours"))
        if options.models:
            [made] = (folder / "ours" / "bins").glob("*/*")
            both = {"documented": folder / "documented-bin", "ours": made}
            models = [Path(name).resolve() for name in options.models.split(",")]
            result["inference"] = inference(both, models, options.rounds)
        if "cached" in parts:
            cache = {"CCACHE_DIR": str(options.cache or folder / "cache")}
            result["filling_the_cache"] = ours(tree, folder / "filling", jobs, clean(**cache))
            built.append(programs(folder / "filling"))
            shutil.rmtree(folder / "filling" / "bins")
            result["cached"] = ours(tree, folder / "filling", jobs, clean(**cache))
            result["cached_in_another_root"] = ours(tree, folder / "elsewhere", jobs, clean(**cache))
            built.append(programs(folder / "elsewhere"))
        if "interrupted" in parts:
            root = folder / "interrupted"
            result["until_interrupted"] = ours(tree, root, jobs, clean(), stop_at=0.5)
            result["interrupted"] = ours(tree, root, jobs, clean())
            built.append(programs(root))
        if "each" in parts:
            result["each"] = each(tree, folder, jobs, options.measures.split(","))
        result["identical"] = all(other == built[0] for other in built)
    for part, whole in (("ours", "documented"), ("cached", "documented"), ("interrupted", "ours")):
        if part in result and whole in result:
            ratio = result[part]["cpu_seconds"] / result[whole]["cpu_seconds"]
            result[part][f"of_{whole}"] = round(ratio, 3)
            result[part]["reached"] = ratio <= GOALS[part]
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
