"""The optimisation levels of the pinned llama.cpp: what computes has -O3, what runs once per start -O1."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

from llama_runner.llama_cpp import cmake
from llama_runner.llama_cpp.toolchain import find_toolchain, tool_path

LEVELS = {
    "ggml-cpu/quants.c": "-O3",
    "ggml-quants.c": "-O3",
    "src/llama-context.cpp": "-O3",
    "src/llama-sampler.cpp": "-O3",
    "tools/mtmd/mtmd-image.cpp": "-O3",
    "tools/perplexity/perplexity.cpp": "-O3",
    "common/sampling.cpp": "-O2",
    "common/jinja/runtime.cpp": "-O2",
    "tools/server/server-context.cpp": "-O2",
    "tools/mtmd/mtmd-helper.cpp": "-O2",
    "src/llama-model.cpp": "-O1",
    "src/models/llama.cpp": "-O1",
    "src/models/xverse.cpp": "-O1",
    "tools/mtmd/models/pixtral.cpp": "-O1",
    "tools/mtmd/clip.cpp": "-O1",
    "common/arg.cpp": "-O1",
}


def test_what_computes_is_compiled_by_o3_and_what_runs_once_by_o1(binaries: Path, tmp_path: Path) -> None:
    [tree] = (binaries / "vendor").glob("llama.cpp-b*/")
    found = find_toolchain(os.environ)
    compilers = [("CMAKE_C_COMPILER", found.c.path), ("CMAKE_CXX_COMPILER", found.cxx.path)]
    given = (*cmake.definitions(backend="cpu", build=1, commit="x"), "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")
    argv = cmake.configure_command(tool_path("cmake"), tool_path("ninja"), tree, tmp_path, compilers, given)
    subprocess.run(argv, check=True, capture_output=True)
    levels: dict[str, str] = {}
    libraries = (
        "/ggml",
        "/llama.dir",
        "/llama-common.dir",
        "/mtmd.dir",
        "/server-context.dir",
        "/llama-perplexity-impl",
    )
    units = 0
    for entry in json.loads((tmp_path / "compile_commands.json").read_text(encoding="utf-8")):
        if not any(each in f"/{entry['output']}" for each in libraries):
            continue
        units += 1
        level = [word for word in shlex.split(entry["command"]) if word.startswith("-O")][-1]
        unit = Path(entry["file"])
        lines = unit.read_text(encoding="utf-8").splitlines() if unit.is_relative_to(tmp_path) else []
        for file in [line.split('"')[1] for line in lines if line.startswith("#include")] or [entry["file"]]:
            levels[file] = level
    told = {name: {level for file, level in levels.items() if file.endswith(f"/{name}")} for name in LEVELS}
    assert told == {name: {level} for name, level in LEVELS.items()}
    assert units < 50, "a file that is in no unit is compiled alone, and reads all headers again"
