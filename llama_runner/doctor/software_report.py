"""Compilers and what else builds need, versions, and the settings that change what happens."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.core.redaction import public_url
from llama_runner.doctor.probe import Document, Place, look
from llama_runner.llama_cpp.backends import BACKENDS, choose_backend, missing_requirements
from llama_runner.llama_cpp.compiler_cache import PROGRAMS
from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.llama_cpp.toolchain import NoCompiler, find_toolchain, tool_path
from llama_runner.store import layout
from llama_runner.system.files import LARGEST_JSON, read_bounded
from llama_runner.system.network import is_offline
from llama_runner.system.redaction import is_secret
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGES = (
    *("huggingface_hub", "gguf", "numpy", "click", "safetensors", "httpx2", "filelock", "psutil", "platformdirs"),
    *("cmake", "ninja", "pip"),
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_HUB = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN")
_BUILDING = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CPATH", "LIBRARY_PATH", "LD_LIBRARY_PATH", "CUDAARCHS")
_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")


def toolchains(place: Place) -> Document:
    """Return the tools of every build, and for each backend what it lacks and the command that brings that."""
    return {
        **_compilers(place),
        "cmake": look(lambda: _packaged("cmake")),
        "ninja": look(lambda: _packaged("ninja")),
        "git": look(lambda: _version(place, ("git",))),
        "compiler_cache": look(lambda: _version(place, PROGRAMS)),
        "nvcc": look(lambda: _nvcc(place)),
        "glslc": look(lambda: _version(place, ("glslc",))),
        "backends": {name: look(lambda name=name: _backend(place, name)) for name in _here(place)},  # type: ignore[misc]
        "best": look(lambda: _best(place)),
    }


def _here(place: Place) -> list[str]:
    return [name for name, backend in BACKENDS.items() if place.platform.partition("-")[0] in backend.systems]


def _compilers(place: Place) -> Document:
    def find() -> Document:
        try:
            found = find_toolchain(place.environment)
        except NoCompiler as error:
            return {"c": None, "cxx": None, "install": error.hint, "lacking": str(error)}
        return {
            role: {"path": str(each.path), "version": each.identity}
            for role, each in (("c", found.c), ("cxx", found.cxx))
        }

    return {"compiler": look(find)}


def _packaged(package: str) -> Document:
    from importlib.metadata import version  # noqa: PLC0415 - slow

    return {"path": str(tool_path(package)), "version": version(package)}


def _version(place: Place, names: Iterable[str]) -> Document | None:
    """Return the first of these programs that is there; None without any."""
    for name in names:
        if path := place.program(name):
            lines = place.ask(path, "--version").splitlines()
            return {"path": str(path), "version": next((line.strip() for line in lines if line.strip()), "")}
    return None


def _nvcc(place: Place) -> Document | None:
    """Return nvcc, and whether it works with the C++ compiler that is here: ``refuses`` is None or what it says."""
    path = place.program("nvcc")
    if path is None:
        return None
    lines = [line for line in place.ask(path, "--version").splitlines() if "release" in line]
    found: Document = {"path": str(path), "version": lines[0].strip() if lines else "", "refuses": None}

    def compile_nothing() -> None:
        try:
            cxx = find_toolchain(place.environment).cxx.path
        except LlamaRunnerError:
            return  # which is a finding of its own
        patient = place.replace(patience=4 * place.patience)
        patient.ask(path, "-ccbin", cxx, "-x", "cu", "-c", os.devnull, "-o", os.devnull)

    refusal = look(compile_nothing)
    return {**found, "refuses": refusal and refusal["unknown"]}


def _backend(place: Place, name: str) -> Document:
    lacking = missing_requirements(name, place.environment, place.system / "usr")
    return {"missing": lacking, "install": BACKENDS[name].install or None if lacking else None}


def _best(place: Place) -> Document:
    chosen = choose_backend(place.platform, place.environment, system=place.system)
    return {"name": chosen.name, "why": chosen.why}


def versions() -> Document:
    """Return versions of llama_runner, Python and the packages, and the llama.cpp that is pinned."""
    return {
        "llama_runner": __version__,
        "python": platform.python_version(),
        "packages": {name: look(lambda name=name: _package(name)) for name in PACKAGES},  # type: ignore[misc]
        "pin": look(_pin),
    }


def _package(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _pin() -> Document:
    pin = load_pin(layout.pin_file())
    return {"build": pin.build, "commit": pin.commit, "package": f"{pin.package} {pin.version}"}


def settings(place: Place) -> Document:
    """Return variables that change what happens; of those that hold a secret only that they are set."""
    environment = place.environment
    shown = [name for name in environment if name.upper() in _PROXIES or name.startswith(("LLAMA_", "GGML_"))]
    shown += [name for name in (*_HUB, *_BUILDING, *_DEVICES, "TMPDIR") if name in environment and name not in shown]
    values = {name: "set" if is_secret(name) and name != "HF_TOKEN_PATH" else environment[name] for name in shown}
    # a proxy may be written without a scheme, and Hiding would not see its password
    values |= {name: public_url(value) for name, value in values.items() if name.upper() in _PROXIES}
    return {
        "variables": dict(sorted(values.items())),
        "hub": look(lambda: _hub(place)),
        "pip_index": look(lambda: "set" if _has_index(place) else "not set"),
    }


def _hub(place: Place) -> Document:
    """Return where the Hub is and where the token is from, never the token."""
    from llama_runner.sources.hub.access import find_access  # noqa: PLC0415 - not for --help

    notices: list[str] = []
    found = find_access(place.environment, token_file=None, notice=lambda _, text: notices.append(text))
    token = found.origin if found.token is not None else None
    return {
        "endpoint": found.endpoint,
        "token": token,
        "offline": is_offline(place.environment),
        "notices": notices,
    }


def token_of(place: Place) -> list[str]:
    """Return the token that would be sent, so that it can be kept out of everything that is said."""
    from llama_runner.sources.hub.access import find_access  # noqa: PLC0415 - not for --help

    found = look(lambda: find_access(place.environment, token_file=None, notice=lambda *_: None).token)
    return [found] if isinstance(found, str) else []


def _has_index(place: Place) -> bool:
    environment = place.environment
    if any(environment.get(name) for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")):
        return True
    home = Path(environment.get("HOME") or Path.home())
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    files = [config / "pip/pip.conf", home / ".pip/pip.conf", place.system / "etc/pip.conf"]
    files += [Path(environment[name]) for name in ("PIP_CONFIG_FILE",) if environment.get(name)]
    files += [place.system / "etc/xdg/pip/pip.conf"]
    texts = (read_bounded(file, LARGEST_JSON).decode("utf-8", "replace") for file in files if file.is_file())
    return any(word in text for text in texts for word in ("index-url", "index_url", "find-links"))
