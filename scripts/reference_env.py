"""Makes the environment that llama.cpp's own converter needs, for the parity tests, and prints its Python's path.

    python scripts/reference_env.py LLAMA_CPP_TREE CACHE_DIRECTORY

The tests then find it by two variables:

    LLAMA_RUNNER_REFERENCE_PYTHON=<the path printed> LLAMA_RUNNER_REFERENCE_TREE=LLAMA_CPP_TREE pytest tests/convert

torch for the CPU is wanted. Where pip would fetch the one for CUDA (several gigabytes), nothing is fetched and
the status is 3: pip is asked first, by a dry run, and the way to the CPU build is pip's own configuration
(PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, pip.conf). Complete environments are found again by a marker that is
written last.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

REQUIREMENTS = (
    "torch==2.13.0",
    "transformers==4.57.6",
    "sentencepiece",
    "protobuf<5",
    "safetensors",
    "numpy",
    "pyyaml",
    "tqdm",
    "requests",
)
MARKER = ".complete"
REFUSED = 3
TORCH_LIMIT = 400_000_000
ACCELERATOR = re.compile(r"^(nvidia-|triton|pytorch-triton|cuda-)", re.IGNORECASE)


def objection(report: dict[str, Any], torch_bytes: int | None) -> str | None:
    """Why what pip would install is not wanted, None if it is; ``torch_bytes`` is unknown where nobody says it."""
    names = [str(item["metadata"]["name"]) for item in report.get("install", [])]
    if accelerators := sorted(name for name in names if ACCELERATOR.match(name)):
        return f"pip would install packages for CUDA: {', '.join(accelerators)}"
    if torch_bytes is not None and torch_bytes > TORCH_LIMIT:
        return f"pip would install a torch of {torch_bytes / 1e6:.0f} MB, the CPU build has less than 400"
    return None


def torch_size(report: dict[str, Any]) -> int | None:
    """Bytes of the torch wheel that pip has chosen; None where it cannot be told."""
    for item in report.get("install", []):
        url = item.get("download_info", {}).get("url", "")
        if item["metadata"]["name"] == "torch" and url.startswith(("http://", "https://")):
            try:
                with urlopen(Request(url, method="HEAD"), timeout=60) as answer:  # noqa: S310 - http(s) only
                    length = answer.headers.get("Content-Length")
            except OSError:
                return None
            return int(length) if length else None
        if item["metadata"]["name"] == "torch" and url.startswith("file://"):
            return Path(url2pathname(urlsplit(url).path)).stat().st_size
    return None


def make(python: Path, folder: Path) -> str | None:
    """Install into a fresh environment, unless pip would fetch the wrong torch: then the reason."""
    report_file = folder / "report.json"
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run([*pip, "--upgrade", "pip>=23.1"], check=True, stdout=sys.stderr)
    dry: list[str | Path] = [*pip, "--dry-run", "--only-binary", ":all:", "--report", report_file, *REQUIREMENTS]
    subprocess.run(dry, check=True, stdout=sys.stderr)
    report = json.loads(report_file.read_text(encoding="utf-8"))
    if reason := objection(report, torch_size(report)):
        return reason
    subprocess.run([*pip, "--only-binary", ":all:", *REQUIREMENTS], check=True, stdout=sys.stderr)
    return None


def main() -> int:
    """Make or find the environment; print the path of its Python."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="unpacked source of llama.cpp")
    parser.add_argument("cache", type=Path, help="directory to make the environment in")
    options = parser.parse_args()
    if not (options.tree / "convert_hf_to_gguf.py").is_file():
        sys.stderr.write(f"not a tree of llama.cpp: {options.tree}\n")
        return 2
    folder = options.cache.resolve() / "reference-env"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    marker = folder / MARKER
    wanted = "\n".join(REQUIREMENTS)
    if not marker.is_file() or marker.read_text(encoding="utf-8") != wanted:
        venv.create(folder, clear=True, with_pip=True)
        if reason := make(python, folder):
            sys.stderr.write(f"{reason}\n")
            return REFUSED
        environment = {**os.environ, "PYTHONPATH": str(options.tree / "gguf-py")}
        check: list[str | Path] = [python, options.tree / "convert_hf_to_gguf.py", "--help"]
        subprocess.run(check, check=True, env=environment, stdout=sys.stderr)
        marker.write_text(wanted, encoding="utf-8")
    print(python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
