"""Environment of llama.cpp's programs: allowed variables only, without configuration files.

Besides ``LLAMA_ARG_*`` variables, llama.cpp reads ``llama.cpp/config.ini`` in the user's configuration directory and in
``/etc``. The first is switched off here. The second cannot be: see ``check_system_config``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_runner.system.platforms import IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SYSTEM_CONFIG = "/etc/llama.cpp/config.ini"

_CONFIG_PLACES = ("XDG_CONFIG_HOME",) if not IS_WINDOWS else ("APPDATA", "PROGRAMDATA")
"""Variables with the directories of configuration files. On Windows, ``PROGRAMDATA`` corresponds to ``/etc``."""
_NO_CONFIG = dict.fromkeys(_CONFIG_PLACES, os.devnull)
"""There are no files below a device, so no configuration is found."""

_SYSTEM = """
PATH HOME USER LOGNAME PWD LANG LANGUAGE TZ TERM NO_COLOR TMPDIR TEMP TMP SSL_CERT_FILE SSL_CERT_DIR
XDG_RUNTIME_DIR XDG_CACHE_HOME XDG_DATA_HOME XDG_DATA_DIRS XDG_CONFIG_DIRS DISPLAY WAYLAND_DISPLAY XAUTHORITY
"""
_WINDOWS = """
SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT USERPROFILE USERNAME LOCALAPPDATA HOMEDRIVE HOMEPATH OS PUBLIC
NUMBER_OF_PROCESSORS PROCESSOR_ARCHITECTURE PROCESSOR_IDENTIFIER COMPUTERNAME
"""
_GRAPHICS = "DRI_PRIME INTEL_DEBUG GPU_DEVICE_ORDINAL GPU_MAX_HW_QUEUES GPU_MAX_HEAP_SIZE GPU_MAX_ALLOC_PERCENT"
_LLAMA_CPP = "LLAMA_API_KEY LLAMA_CACHE"
"""Variables of llama.cpp that are not options: API keys of a server, and the download directory."""
_PASSED = frozenset(f"{_SYSTEM} {_WINDOWS} {_GRAPHICS} {_LLAMA_CPP}".split())
_PASSED_PREFIXES = (
    *("LC_", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "MIMALLOC_", "TCMALLOC_", "JEMALLOC_"),
    *("OMP_", "GOMP_", "KMP_", "LIBOMP_", "OPENBLAS_", "GOTO_", "BLIS_", "MKL_", "VECLIB_", "DNNL_", "ONEDNN_"),
    *("GGML_", "CUDA_", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "ROCM_", "ROCBLAS_", "HIPBLASLT_", "HSA_", "AMD_"),
    *("VK_", "VULKAN_", "MESA_", "RADV_", "ANV_", "__GL", "__NV", "__VK", "LIBGL_", "MTL_", "METAL_", "OCL_"),
    *("OPENCL_", "SYCL_", "ONEAPI_", "UR_", "ZE_", "ZES_", "IGC_", "NEO", "OPENVINO_", "ASCEND_", "MUSA_"),
    *("ZENDNN_", "SPACEMIT_"),
)
_NEVER = ("AIP_", "LLAMA_SERVER_")
"""Prefixes of variables that change llama-server's port or start it as a child of a router."""

_PATHS = """
MODEL MODEL_DRAFT SPEC_DRAFT_MODEL MODEL_VOCODER MMPROJ LOG_FILE STATIC_PATH UI_CONFIG_FILE WEBUI_CONFIG_FILE
MCP_SERVERS_CONFIG API_KEY_FILE SSL_KEY_FILE SSL_CERT_FILE MODELS_DIR MODELS_PRESET CHAT_TEMPLATE_FILE
"""
PATH_VARIABLES = frozenset(f"LLAMA_ARG_{name}" for name in _PATHS.split())
"""Variables of llama-server that name a file or a directory."""

MODEL_SOURCES = tuple(
    f"LLAMA_ARG_{name}"
    for name in ("MODEL", "MODEL_URL", "HF_REPO", "HF_FILE", "DOCKER_REPO", "MODELS_DIR", "MODELS_PRESET")
)
"""Variables that are never passed to a server: we pass the model, and a URL would be downloaded over its file."""


def program_environment(ours: Mapping[str, str], *, inherit: bool = False) -> dict[str, str]:
    """Return the environment for a program of llama.cpp, made from ``ours``.

    With ``inherit`` all variables are passed, ``LLAMA_ARG_*`` included, except for configuration files and ``_NEVER``.
    Relative paths become absolute, as the program starts in another directory.
    """
    if inherit:
        passed = {name: value for name, value in ours.items() if not name.startswith(_NEVER)}
    else:
        passed = {name: text for name, text in ours.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    return absolute_variables(passed) | _NO_CONFIG


def absolute_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with absolute paths in llama.cpp's variables."""
    found = {name: value for name, value in environment.items() if name in PATH_VARIABLES and value}
    if backend := environment.get("GGML_BACKEND_PATH"):
        found["GGML_BACKEND_PATH"] = backend
    relative = {name: value for name, value in found.items() if not os.path.isabs(value)}  # noqa: PTH117 - text
    return {**environment, **{name: os.path.join(os.getcwd(), value) for name, value in relative.items()}}  # noqa: PTH109, PTH118


def step_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a step that runs a program of llama.cpp: no variable that could change its output."""
    from llama_runner.llama_cpp.toolchain import PASSED_ENVIRONMENT  # noqa: PLC0415 - not on the warm path

    return {name: ours[name] for name in PASSED_ENVIRONMENT if name in ours} | _NO_CONFIG


def check_system_config(tell: Callable[[str], None]) -> None:
    """Check the system's configuration file of llama.cpp before a program starts.

    ``tell`` gets a sentence about the options that the program will take from it. Raises ``ServerError`` for refused
    options (``etc_config.check``).
    """
    if not IS_WINDOWS and os.path.exists(SYSTEM_CONFIG):  # noqa: PTH110 - faster
        from llama_runner.llama_cpp.check_etc_config_ini import check  # noqa: PLC0415 - few machines have such a file

        if told := check(SYSTEM_CONFIG, os.environ):
            tell(told)
