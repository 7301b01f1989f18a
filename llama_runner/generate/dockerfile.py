"""A Dockerfile for the image of the other targets: this package, and llama.cpp's programs that were built for it."""

from __future__ import annotations

from typing import Literal, get_args

from llama_runner.core.immutable_values import Value
from llama_runner.generate.container import PORT, ROOT, UID
from llama_runner.store.layout import BINS_VARIABLE, ROOT_VARIABLE

FILE_NAME = "Dockerfile"
PROGRAMS = "/opt/llama.cpp"

Variant = Literal["cpu", "cuda", "vulkan"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


class _Base(Value):
    """What the stages of a variant are made from."""

    build_image: str
    image: str
    build_packages: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """Of ``bins build``, beside the backend."""
    arguments: tuple[str, ...] = ()
    """Lines before ``bins build``."""


_CUDA_VERSION = "12.8.1"
_UBUNTU = "ubuntu:24.04"
_BASES: dict[Variant, _Base] = {
    "cpu": _Base(_UBUNTU, _UBUNTU),
    "cuda": _Base(
        "nvidia/cuda:${CUDA_VERSION}-devel-ubuntu24.04",
        "nvidia/cuda:${CUDA_VERSION}-runtime-ubuntu24.04",
        options=(
            "--cmake-arg GGML_CUDA=ON",
            "--cmake-arg GGML_CUDA_NCCL=OFF",
            '--cmake-arg "CMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES}"',
            # part of the key, so that a remote store does not give a build for another CUDA
            '--cflags "-DCUDA_OF_IMAGE=${CUDA_VERSION}"',
        ),
        arguments=("ARG CUDA_VERSION", 'ARG CUDA_ARCHITECTURES="75-virtual;80-virtual;86-real;89-real;90-real"'),
    ),
    "vulkan": _Base(
        _UBUNTU,
        _UBUNTU,
        build_packages=("glslc", "libvulkan-dev", "spirv-headers"),
        packages=("libvulkan1", "mesa-vulkan-drivers"),
        options=("--cmake-arg GGML_VULKAN=ON",),
    ),
}


def dockerfile(variant: Variant, *, package: str) -> str:
    """Return the file. ``package`` is what pip installs unless the build argument ``PACKAGE`` names something else.

    The programs are built as ``cpu-portable``, which loads the backend for a GPU where there is one: the smoke test at
    build time runs without a GPU, and the one at the first start with it.
    """
    base = _BASES[variant]
    head = [
        "# syntax=docker/dockerfile:1",
        f"# Made by: llama-runner generate dockerfile --variant {variant}",
        "# A digest pins an image: --build-arg BUILD_DIGEST=@sha256:… --build-arg RUN_DIGEST=@sha256:…",
        *([f'ARG CUDA_VERSION="{_CUDA_VERSION}"'] if variant == "cuda" else []),
        f'ARG BUILD_IMAGE="{base.build_image}"',
        'ARG BUILD_DIGEST=""',
        f'ARG RUN_IMAGE="{base.image}"',
        'ARG RUN_DIGEST=""',
    ]
    return "\n".join([*head, "", *_build_stage(base, package), "", *_run_stage(base), ""])


def _install(packages: tuple[str, ...]) -> list[str]:
    return [
        "# The index of the base image has the versions of its release.",
        "# hadolint ignore=DL3008",
        "RUN apt-get update \\",
        f" && apt-get install -y --no-install-recommends {' '.join(packages)} \\",
        " && rm -rf /var/lib/apt/lists/*",
    ]


def _build_stage(base: _Base, package: str) -> list[str]:
    words = " ".join(("--backend cpu-portable", *base.options, "--root /build"))
    return [
        "FROM ${BUILD_IMAGE}${BUILD_DIGEST} AS build",
        'SHELL ["/bin/bash", "-eo", "pipefail", "-c"]',
        *_install(("build-essential", "ca-certificates", "python3", "python3-venv", *base.build_packages)),
        "",
        "# PACKAGE is for pip: a requirement, or /context/FILE.whl for a wheel beside this file. The secret `pip` is a",
        "# pip.conf, for an index of your own.",
        f'ARG PACKAGE="{package}"',
        "RUN --mount=type=bind,target=/context \\",
        "    --mount=type=secret,id=pip,target=/etc/pip.conf \\",
        "    python3 -m venv /opt/llama-runner \\",
        ' && /opt/llama-runner/bin/pip install --no-cache-dir "${PACKAGE}"',
        "",
        "# The programs are compiled, or fetched by their key if REMOTE_STORE has them. The secret `remote-store` is a",
        "# file of shell variables with its credentials. The source of llama.cpp is on the package index too.",
        'ARG REMOTE_STORE=""',
        *base.arguments,
        "RUN --mount=type=secret,id=pip,target=/etc/pip.conf \\",
        "    --mount=type=secret,id=remote-store,target=/run/secrets/remote-store \\",
        "    set -a; if [ -f /run/secrets/remote-store ]; then . /run/secrets/remote-store; fi; set +a; \\",
        '    export LLAMA_RUNNER_REMOTE_STORE="${REMOTE_STORE}"; \\',
        f"    /opt/llama-runner/bin/llama-runner bins build {words} \\",
        f' && cp -a "$(/opt/llama-runner/bin/llama-runner bins path --root /build cpu-portable)" {PROGRAMS} \\',
        " && rm -rf /build",
    ]


def _run_stage(base: _Base) -> list[str]:
    check = (
        '["python3", "-c", "import urllib.request as u; '
        f"u.build_opener(u.ProxyHandler({{}})).open('http://127.0.0.1:{PORT}/health', timeout=5)\"]"
    )
    return [
        "FROM ${RUN_IMAGE}${RUN_DIGEST}",
        *_install(("ca-certificates", "python3", *base.packages)),
        f"RUN groupadd --gid {UID} llama \\",
        f" && useradd --uid {UID} --gid {UID} --no-create-home --home-dir {ROOT} llama \\",
        f" && install -d -o {UID} -g {UID} -m 700 {ROOT}",
        "COPY --from=build /opt/llama-runner /opt/llama-runner",
        f"COPY --from=build {PROGRAMS} {PROGRAMS}",
        "ENV PATH=/opt/llama-runner/bin:$PATH \\",
        "    PYTHONDONTWRITEBYTECODE=1 \\",
        f"    {ROOT_VARIABLE}={ROOT} \\",
        f"    {BINS_VARIABLE}={PROGRAMS}",
        "# All that is written is here and in /tmp: the root file system may be read-only.",
        f"VOLUME {ROOT}",
        f"WORKDIR {ROOT}",
        f"USER {UID}:{UID}",
        f"EXPOSE {PORT}",
        "# Healthy is ready: the model is loaded and answers.",
        "HEALTHCHECK --interval=10s --timeout=10s --start-period=1h --retries=3 \\",
        f"  CMD {check}",
        'ENTRYPOINT ["llama-runner"]',
        'CMD ["--help"]',
    ]
