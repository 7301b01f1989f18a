"""What the user has in their Hugging Face cache is used and never changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.core.digest import Digest, file_digest
from llama_runner.core.errors import Interrupted
from llama_runner.sources.hub.hf_cache import find_cached, place_cached
from llama_runner.sources.hub.pins import Pin, RemoteFile
from llama_runner.system.platforms import HOME

COMMIT = "c" * 40
WEIGHTS = b"GGUF" + bytes(range(256)) * 12_000
CONFIG = b'{"architectures": ["LlamaForCausalLM"]}'
OTHER_DEVICE = Path("/dev/shm")
NEEDED_BY_PYTHON = ("PYTHONPATH", "SYSTEMROOT", "USERPROFILE")


def in_lfs(name: str, content: bytes) -> RemoteFile:
    return RemoteFile(name, len(content), sha256(content))


def in_git(name: str, content: bytes) -> RemoteFile:
    return RemoteFile(name, len(content), None, blob(content))


def sha256(content: bytes) -> Digest:
    return file_digest(hashlib.sha256(content).hexdigest())


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def never() -> bool:
    return False


class Cache:
    """A cache as huggingface_hub lays it out, with one repository."""

    def __init__(self, directory: Path) -> None:
        self.repo = directory / "models--org--model"
        self.files: list[RemoteFile] = []

    def add(self, file: RemoteFile, content: bytes) -> Path:
        etag = file.blob if file.sha256 is None else file.sha256.partition(":")[2]
        stored = self.repo / "blobs" / etag
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(content)
        link = self.repo / "snapshots" / COMMIT / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        self.files.append(file)
        try:
            link.symlink_to(os.path.relpath(stored, link.parent))
        except OSError:  # on Windows huggingface_hub has the file there then, and no blob
            return stored.replace(link)
        return stored

    @property
    def pin(self) -> Pin:
        return Pin("org/model", COMMIT, tuple(self.files))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "hub")


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"HF_HUB_CACHE": "{}/a", "HUGGINGFACE_HUB_CACHE": "{}/x", "HF_HOME": "{}/x"}, "a"),
        ({"HUGGINGFACE_HUB_CACHE": "{}/b", "HF_HOME": "{}/x"}, "b"),
        ({"HF_HOME": "{}/c", "XDG_CACHE_HOME": "{}/x"}, "c/hub"),
        ({"XDG_CACHE_HOME": "{}/d", HOME: "{}/x"}, "d/huggingface/hub"),
        ({HOME: "{}/e"}, "e/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_huggingface_hub_itself_looks(
    tmp_path: Path, environment: dict[str, str], directory: str
) -> None:
    environment = {name: value.format(tmp_path) for name, value in environment.items()}
    cache = Cache(tmp_path / directory)
    file = in_lfs("model.gguf", WEIGHTS)
    stored = cache.add(file, WEIGHTS)
    asked = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE)"
    of_system = {name: os.environ[name] for name in NEEDED_BY_PYTHON if name in os.environ}
    theirs = subprocess.run(
        [sys.executable, "-c", asked], env=of_system | environment, check=True, capture_output=True, text=True
    )
    assert Path(theirs.stdout.strip()) == tmp_path / directory
    assert find_cached(cache.pin, file, environment) == stored


def test_files_in_lfs_and_small_ones_are_found_also_in_folders(tmp_path: Path, cache: Cache) -> None:
    weights, config = in_lfs("BF16/model.gguf", WEIGHTS), in_git("config.json", CONFIG)
    stored = cache.add(weights, WEIGHTS), cache.add(config, CONFIG)
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    assert find_cached(cache.pin, weights, environment) == stored[0]
    assert find_cached(cache.pin, config, environment) == stored[1]


def test_a_file_that_only_a_snapshot_has_is_found(tmp_path: Path, cache: Cache) -> None:
    """Where there are no symbolic links, huggingface_hub keeps files in the snapshot itself."""
    file = in_lfs("model.gguf", WEIGHTS)
    path = cache.repo / "snapshots" / COMMIT / file.name
    path.parent.mkdir(parents=True)
    path.write_bytes(WEIGHTS)
    assert find_cached(cache.pin, file, {"HF_HUB_CACHE": str(tmp_path / "hub")}) == path


def test_bytes_of_another_commit_are_found(tmp_path: Path, cache: Cache) -> None:
    """Most commits change a README and leave the weights as they were."""
    weights, config = in_lfs("model.gguf", WEIGHTS), in_git("config.json", CONFIG)
    stored = cache.add(weights, WEIGHTS), cache.add(config, CONFIG)
    later = cache.pin.replace(commit="d" * 40)
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    assert (find_cached(later, weights, environment), find_cached(later, config, environment)) == stored


def test_what_cannot_be_the_file_is_not_found(tmp_path: Path, cache: Cache) -> None:
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    file = in_lfs("model.gguf", WEIGHTS)
    assert find_cached(cache.pin, file, environment) is None, "there is no cache at all"
    stored = cache.add(file, WEIGHTS[:-1])
    assert find_cached(cache.pin, file, environment) is None, "it was cut short"
    stored.unlink()
    assert find_cached(cache.pin, file, environment) is None, "the link in the snapshot dangles"
    stored.mkdir()
    assert find_cached(cache.pin, file, environment) is None, "a directory is in its place"


@pytest.mark.parametrize(("file", "content"), [(in_lfs("a.gguf", WEIGHTS), WEIGHTS), (in_git("a", CONFIG), CONFIG)])
def test_cached_bytes_are_shared_rather_than_copied_or_fetched(
    tmp_path: Path, cache: Cache, file: RemoteFile, content: bytes
) -> None:
    stored = cache.add(file, content)
    before = stored.stat()
    target = tmp_path / "work" / "files" / file.name
    assert place_cached(stored, target, file, never) == sha256(content)
    assert target.read_bytes() == content
    assert shares_bytes(target, stored) or can_clone(tmp_path)
    after = stored.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_size) == (before.st_mode, before.st_mtime_ns, before.st_size)
    target.unlink()
    assert stored.read_bytes() == content, "removing ours leaves the user's"


def shares_bytes(one: Path, other: Path) -> bool:
    return one.stat().st_ino == other.stat().st_ino


def can_clone(directory: Path) -> bool:
    """Whether the file system makes copies that share their blocks."""
    fcntl = pytest.importorskip("fcntl")
    with (directory / "clone-a").open("wb") as one, (directory / "clone-b").open("wb") as other:
        one.write(b"x" * 4096)
        one.flush()
        try:
            fcntl.ioctl(other.fileno(), 0x40049409, one.fileno())
        except OSError:
            return False
    return True


def test_a_clone_is_a_file_of_its_own(tmp_path: Path, cache: Cache) -> None:
    if not can_clone(tmp_path):
        pytest.skip("this file system has no copy-on-write clones")
    file = in_lfs("model.gguf", WEIGHTS)
    stored = cache.add(file, WEIGHTS)
    assert place_cached(stored, tmp_path / "ours.gguf", file, never) == file.sha256
    assert not shares_bytes(tmp_path / "ours.gguf", stored)


def test_a_cache_on_another_disk_is_copied(tmp_path: Path) -> None:
    if not OTHER_DEVICE.is_dir() or OTHER_DEVICE.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here")
    file = in_lfs("model.gguf", WEIGHTS)
    stored = OTHER_DEVICE / f"llama-runner-{os.getpid()}.gguf"
    try:
        stored.write_bytes(WEIGHTS)
        assert place_cached(stored, tmp_path / "model.gguf", file, never) == file.sha256
        assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS
        stored.write_bytes(WEIGHTS[:-1] + b"!")
        assert place_cached(stored, tmp_path / "other.gguf", file, never) is None
        with pytest.raises(Interrupted):
            place_cached(stored, tmp_path / "other.gguf", file, lambda: True)
    finally:
        stored.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", "other.gguf.copying"]


@pytest.mark.parametrize("file", [in_lfs("model.gguf", WEIGHTS), in_git("model.gguf", WEIGHTS)])
def test_pain_02_wrong_bytes_in_the_cache_are_not_used(tmp_path: Path, cache: Cache, file: RemoteFile) -> None:
    wrong = WEIGHTS[:5000] + b"!" + WEIGHTS[5001:]
    stored = cache.add(file, wrong)
    received = tmp_path / "model.gguf.incomplete"
    received.write_bytes(WEIGHTS[:5000])
    assert place_cached(stored, tmp_path / "model.gguf", file, never) is None
    assert not (tmp_path / "model.gguf").exists()
    assert received.read_bytes() == WEIGHTS[:5000], "what was received before is kept"
    assert stored.read_bytes() == wrong, "what to do with it is for its owner to say"


def test_a_cache_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    assert place_cached(tmp_path / "gone", tmp_path / "ours", in_lfs("model.gguf", WEIGHTS), never) is None
    assert not (tmp_path / "ours").exists()


def test_adopting_stops_when_asked_to(tmp_path: Path, cache: Cache) -> None:
    file = in_lfs("model.gguf", WEIGHTS)
    stored = cache.add(file, WEIGHTS)
    with pytest.raises(Interrupted):
        place_cached(stored, tmp_path / "ours.gguf", file, lambda: True)
    assert not (tmp_path / "ours.gguf").exists()


def test_what_was_at_the_target_gives_way(tmp_path: Path, cache: Cache) -> None:
    file = in_lfs("model.gguf", WEIGHTS)
    stored = cache.add(file, WEIGHTS)
    target = tmp_path / "model.gguf"
    target.write_bytes(b"damaged")
    target.with_name("model.gguf.incomplete").write_bytes(WEIGHTS[:100])
    assert place_cached(stored, target, file, never) == file.sha256
    assert target.read_bytes() == WEIGHTS
    assert not target.with_name("model.gguf.incomplete").exists()


def test_what_a_crash_left_of_an_adoption_is_cleared_away(tmp_path: Path, cache: Cache) -> None:
    file = in_lfs("model.gguf", WEIGHTS)
    stored, other = cache.add(file, WEIGHTS), cache.add(in_git("other", CONFIG), CONFIG)
    (tmp_path / "model.gguf.copying").hardlink_to(other)
    assert place_cached(stored, tmp_path / "model.gguf", file, never) == file.sha256
    assert other.read_bytes() == CONFIG, "it was a link to a file of the user"
    assert not (tmp_path / "model.gguf.copying").exists()


def test_a_file_that_is_replaced_while_it_is_hashed_is_not_mistaken(tmp_path: Path, cache: Cache) -> None:
    file = in_lfs("model.gguf", WEIGHTS)
    stored = cache.add(file, WEIGHTS)
    other = tmp_path / "other"
    other.write_bytes(b"!" * len(WEIGHTS))

    def meanwhile() -> bool:
        if other.exists():
            other.replace(stored)
        return False

    digest = place_cached(stored, tmp_path / "model.gguf", file, meanwhile)
    assert digest == file.sha256
    assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS


def test_adopting_once_more_changes_nothing(tmp_path: Path, cache: Cache) -> None:
    file = in_lfs("model.gguf", WEIGHTS)
    stored = cache.add(file, WEIGHTS)
    target = tmp_path / "work" / "model.gguf"
    assert place_cached(stored, target, file, never) == file.sha256
    assert place_cached(stored, target, file, never) == file.sha256
    assert [path.name for path in target.parent.iterdir()] == ["model.gguf"]
