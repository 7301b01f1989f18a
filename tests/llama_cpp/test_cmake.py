"""What CMake is told, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llama_runner.core.errors import UsageError
from llama_runner.llama_cpp import cmake
from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.store import layout
from tests.shared_root import shared_root


def test_cmake_is_called_with_exactly_these_arguments() -> None:
    compilers = [("CMAKE_C_COMPILER", Path("/cc")), ("CMAKE_CXX_COMPILER", Path("/cxx"))]
    argv = cmake.configure_command(Path("/c"), Path("/n"), Path("/s"), Path("/b"), compilers, ("-DX=1",))
    assert argv == [
        *("/c", "-S", "/s", "-B", "/b", "-G", "Ninja", "-DCMAKE_MAKE_PROGRAM=/n"),
        *("-DCMAKE_C_COMPILER=/cc", "-DCMAKE_CXX_COMPILER=/cxx"),
        f"-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES={cmake.FASTER_BUILD}",
        *(f"-DCMAKE_PROJECT_INCLUDE={cmake.PROJECT_INCLUDE}", "-DX=1"),
    ]


def test_every_option_is_decided() -> None:
    assert cmake.definitions(backend="cpu", build=10605, commit="unknown") == (
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_SHARED_LIBS=OFF",
        "-DLLAMA_BUILD_NUMBER=10605",
        "-DLLAMA_BUILD_COMMIT=unknown",
        "-DLLAMA_BUILD_TESTS=OFF",
        "-DLLAMA_BUILD_EXAMPLES=OFF",
        "-DLLAMA_BUILD_APP=OFF",
        "-DLLAMA_ALL_WARNINGS=OFF",
        "-DLLAMA_BUILD_UI=OFF",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        "-DLLAMA_UI_GZIP=OFF",
        "-DLLAMA_OPENSSL=OFF",
        "-DGGML_OPENMP=OFF",
        "-DGGML_BLAS=OFF",
        "-DGGML_CCACHE=OFF",
        "-DGGML_NATIVE=ON",
        "-DGGML_METAL=OFF",
    )


def test_files_of_an_unknown_tree_are_compiled_one_by_one() -> None:
    ours = set(cmake.definitions(backend="cpu", build=1, commit="x"))
    theirs = set(cmake.definitions(backend="cpu", build=1, commit="x", pinned=False))
    assert theirs - ours == {"-DCMAKE_UNITY_BUILD=OFF"}


OWN_OPTIONS = {
    "cpu-portable": {
        "BUILD_SHARED_LIBS": "ON",
        "GGML_NATIVE": "OFF",
        "GGML_BACKEND_DL": "ON",
        "GGML_CPU_ALL_VARIANTS": "ON",
    },
    "cuda": {"GGML_CUDA": "ON", "GGML_CUDA_NCCL": "OFF", "CMAKE_CUDA_ARCHITECTURES": "86;90"},
    "hip": {"GGML_HIP": "ON", "GPU_TARGETS": "86;90"},
    "metal": {"GGML_METAL": "ON"},
    "openblas": {"GGML_BLAS": "ON", "GGML_BLAS_VENDOR": "OpenBLAS"},
    "openblas+rpc": {"GGML_BLAS": "ON", "GGML_BLAS_VENDOR": "OpenBLAS", "GGML_RPC": "ON"},
    "vulkan": {"GGML_VULKAN": "ON"},
}


def _options(backend: str, keywords: cmake.CMakeOptions | None = None, gpus: str = "") -> dict[str, str]:
    words = cmake.definitions(backend=backend, build=1, commit="x", keywords=keywords, gpus=gpus)
    assert all(word.startswith("-D") for word in words)
    return {name: value for name, _, value in (word.removeprefix("-D").partition("=") for word in words)}


@pytest.mark.parametrize("backend", OWN_OPTIONS)
def test_a_backend_adds_these_options_and_no_others(backend: str) -> None:
    options = _options(backend, gpus="86;90" if backend in ("cuda", "hip") else "")
    assert options == {**_options("cpu"), **OWN_OPTIONS[backend]}


@pytest.fixture(scope="module")
def declared() -> dict[str, str]:
    """Return the options that the pinned source tree declares, with their default values."""
    build = load_pin(layout.pin_file()).build
    tree = shared_root() / "vendor" / f"llama.cpp-b{build}"
    files = [tree / "CMakeLists.txt", tree / "ggml" / "CMakeLists.txt"]
    if not all(file.is_file() for file in files):
        pytest.skip("llama.cpp was compiled elsewhere, and its source is not here")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return dict(re.findall(r"^ *(?:option|set) *\((\w+) .*?([^\s()]+)\)?$", text, re.MULTILINE))


@pytest.mark.parametrize("backend", OWN_OPTIONS)
def test_19_06_each_option_of_a_backend_is_one_of_llama_cpp(backend: str, declared: dict[str, str]) -> None:
    ours = {name for name in OWN_OPTIONS[backend] if name.startswith("GGML_")}
    assert ours <= declared.keys()


def test_19_06_what_llama_cpp_turns_on_for_macos_is_decided_here(declared: dict[str, str]) -> None:
    """Metal and BLAS are on there by default. The kernels of Metal are part of the program: no file lies beside it."""
    assert {declared["GGML_METAL"], declared["GGML_BLAS"]} == {"${GGML_METAL_DEFAULT}", "${GGML_BLAS_DEFAULT}"}
    assert {"GGML_METAL", "GGML_BLAS"} <= _options("cpu").keys()
    assert declared["GGML_METAL_EMBED_LIBRARY"] == "${GGML_METAL}"
    assert _options("metal")["GGML_METAL"] == "ON"


def test_what_the_user_says_about_a_build_comes_last() -> None:
    keywords = cmake.CMakeOptions("Debug", ("GGML_LTO=ON", "-DGGML_NATIVE:BOOL=OFF", "X="), "-O1 -g", "-g")
    assert _options("cpu", keywords) == {
        **_options("cpu"),
        "CMAKE_BUILD_TYPE": "Debug",
        "CMAKE_C_FLAGS": "-O1 -g",
        "CMAKE_CXX_FLAGS": "-g",
        "GGML_LTO": "ON",
        "GGML_NATIVE": "OFF",
        "X": "",
    }


@pytest.mark.parametrize("word", ["GGML_LTO", "-G", "=ON", "A B=1", ""])
def test_what_is_no_definition_is_not_passed_to_cmake(word: str) -> None:
    with pytest.raises(UsageError, match="is not NAME=VALUE"):
        _options("cpu", cmake.CMakeOptions(arguments=(word,)))


def test_what_other_options_decide_is_not_passed_to_cmake() -> None:
    with pytest.raises(UsageError, match="CMAKE_BUILD_TYPE") as caught:
        _options("cpu", cmake.CMakeOptions(arguments=("CMAKE_BUILD_TYPE=Debug",)))
    assert caught.value.hint == "use --build-type"


def test_only_builds_with_rpc_have_the_program_for_other_machines() -> None:
    assert "ggml-rpc-server" in cmake.targets("vulkan+rpc")
    assert "ggml-rpc-server" not in cmake.targets("vulkan")


def test_libraries_that_are_loaded_lie_beside_the_programs_and_are_found_there() -> None:
    shared = cmake.definitions(backend="cpu-portable", build=1, commit="x")
    argv = cmake.configure_command(Path("/c"), Path("/n"), Path("/s"), Path("/b"), [], shared)
    assert "-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=/b/bin" in argv
    assert "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON" in argv


def test_progress_is_what_ninja_says() -> None:
    assert cmake.parse_progress("[12/330] Building CXX object x.o") == (12, 330)
    assert cmake.parse_progress("ninja: no work to do.") is None


def test_options_that_cmake_ignores_are_found_in_its_warning() -> None:
    said = [
        "-- Generating done (0.1s)",
        "CMake Warning:",
        "  Manually-specified variables were not used by the project:",
        "",
        "    GGML_CUDA_CUBLAS",
        "    NO_SUCH_THING",
        "",
        "",
        "-- Build files have been written to: /b",
    ]
    assert cmake.unused_options(said) == ["GGML_CUDA_CUBLAS", "NO_SUCH_THING"]
    assert cmake.unused_options(said[:1] + said[-1:]) == []


def test_the_pin_is_complete() -> None:
    pin = load_pin(layout.pin_file())
    assert pin.build == 10605
    assert pin.filename.startswith(f"{pin.package}-{pin.version}")
    assert len(pin.digest) == len("sha256:") + 64
    assert len(pin.tree_digest) == len("tree1:") + 64
