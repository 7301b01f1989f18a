"""The directories of other programs, laid out as their documentation says, with real GGUF files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

MEDIA = "application/vnd.ollama.image."


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def ollama_blob(store: Path, content: bytes, name: str | None = None) -> str:
    """Write a blob and return its digest; ``name`` is another one than its own."""
    digest = name or sha256(content)
    blob = store / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    return f"sha256:{digest}"


def ollama_model(store: Path, name: str, layers: dict[str, bytes | str]) -> Path:
    """Write a model of Ollama 0.12: a manifest, and a blob for each layer (a text is the digest of one)."""
    found = []
    for kind, content in layers.items():
        digest = content if isinstance(content, str) else ollama_blob(store, content)
        size = 0 if isinstance(content, str) else len(content)
        found.append({"mediaType": f"{MEDIA}{kind}", "digest": digest, "size": size})
    config = ollama_blob(store, b'{"model_format":"gguf","model_family":"llama"}')
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config, "size": 46},
        "layers": found,
    }
    model, _, tag = name.partition(":")
    path = store / "manifests" / "registry.ollama.ai" / ("library/" + model if "/" not in model else model) / tag
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    return path


def hub_cache(cache: Path, repo: str, files: dict[str, bytes], commit: str = 40 * "a") -> Path:
    """Write a repository as huggingface_hub 0.8 and later do; return the snapshot."""
    top = cache / f"models--{repo.replace('/', '--')}"
    snapshot = top / "snapshots" / commit
    (top / "refs").mkdir(parents=True)
    (top / "refs" / "main").write_text(commit)
    (top / "blobs").mkdir()
    for name, content in files.items():
        is_large = name.endswith((".gguf", ".safetensors"))
        blob = sha256(content) if is_large else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        (top / "blobs" / blob).write_bytes(content)
        path = snapshot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(top / "blobs" / blob, path.parent))
    return snapshot


def lm_studio(models: Path, publisher: str, model: str, files: dict[str, bytes]) -> Path:
    """Write a model as LM Studio 0.3 does."""
    directory = models / publisher / model
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def llama_cpp(cache: Path, repo: str, name: str, content: bytes, *, tag: str | None = None) -> Path:
    """Write a file as llama.cpp of 2025 caches it; with a tag, with the manifest of ``-hf REPO:TAG``."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{repo.replace('/', '_')}_{name}"
    path.write_bytes(content)
    url = f"https://huggingface.co/{repo}/resolve/main/{name}"
    Path(f"{path}.json").write_text(json.dumps({"etag": '"x"', "lastModified": "", "url": url}))
    if tag is not None:
        manifest = {"ggufFile": {"rfilename": name, "size": len(content), "lfs": {"sha256": sha256(content)}}}
        (cache / f"manifest={repo.replace('/', '=')}={tag}.json").write_text(json.dumps(manifest))
    return path


def state_of(directory: Path) -> dict[str, Any]:
    """Return names, modes, times and contents of everything below a directory; new links do not count."""
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = None if path.is_dir() else str(path.readlink()) if path.is_symlink() else sha256(path.read_bytes())
        found[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_size if path.is_file() else 0, content)
    return found
