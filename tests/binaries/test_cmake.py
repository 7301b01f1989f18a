"""What CMake is told, word for word."""

from __future__ import annotations

from pathlib import Path

from llama_runner import paths
from llama_runner.binaries import cmake
from llama_runner.binaries.pin import load_pin


def test_the_words_are_these() -> None:
    argv = cmake.configure(Path("/c"), Path("/n"), Path("/s"), Path("/b"), Path("/cc"), Path("/cxx"), ("-DX=1",))
    assert argv == [
        *("/c", "-S", "/s", "-B", "/b", "-G", "Ninja", "-DCMAKE_MAKE_PROGRAM=/n"),
        *("-DCMAKE_C_COMPILER=/cc", "-DCMAKE_CXX_COMPILER=/cxx"),
        *(f"-DCMAKE_PROJECT_INCLUDE={cmake.PROJECT_INCLUDE}", "-DX=1"),
    ]


def test_every_option_is_decided() -> None:
    assert cmake.options(backend="cpu", build=10605, commit="unknown") == (
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_SHARED_LIBS=OFF",
        "-DLLAMA_BUILD_NUMBER=10605",
        "-DLLAMA_BUILD_COMMIT=unknown",
        "-DLLAMA_BUILD_TESTS=OFF",
        "-DLLAMA_BUILD_EXAMPLES=OFF",
        "-DLLAMA_BUILD_APP=OFF",
        "-DLLAMA_ALL_WARNINGS=OFF",
        "-DLLAMA_BUILD_UI=ON",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        "-DLLAMA_UI_GZIP=OFF",
        "-DLLAMA_OPENSSL=OFF",
        "-DGGML_OPENMP=OFF",
        "-DGGML_BLAS=OFF",
        "-DGGML_CCACHE=OFF",
        "-DGGML_NATIVE=ON",
        "-DGGML_METAL=OFF",
    )
    assert "-DGGML_METAL=ON" in cmake.options(backend="metal", build=1, commit="x")


def test_progress_is_what_ninja_says() -> None:
    assert cmake.progress("[12/330] Building CXX object x.o") == (12, 330)
    assert cmake.progress("ninja: no work to do.") is None


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
    pin = load_pin(paths.pin_file())
    assert pin.build == 10605
    assert pin.filename.startswith(f"{pin.package}-{pin.version}")
    assert len(pin.digest) == len("sha256:") + 64
    assert len(pin.tree_digest) == len("tree1:") + 64
