"""A bundle is believed in nothing that can be checked; of one that is refused nothing is kept."""

from __future__ import annotations

import copy
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from llama_runner import Runner
from llama_runner.core.digest import key_of, tree_digest
from llama_runner.core.errors import LlamaRunnerError
from llama_runner.library.bundle_format import BadBundle
from tests.conftest import Command, says

Manifest = dict[str, Any]
Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture(scope="session")
def bundle(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return an honest bundle of the demo model."""
    stream = io.BytesIO()
    Runner(binaries).prepare(demo=True)
    Runner(binaries).models.export("demo:q4_k_m", output=stream)
    return stream.getvalue()


def members_of(bundle: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def packed(members: Members) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for info, content in members:
            if info.isreg():
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def with_manifest(bundle: bytes, change: Callable[[Manifest], object]) -> bytes:
    (info, content), *rest = members_of(bundle)
    manifest = json.loads(content)
    change(manifest)
    return packed([(info, json.dumps(manifest).encode()), *rest])


def refused(root: Path, bundle: bytes, why: str) -> LlamaRunnerError:
    """Import it into an empty root; nothing of it is left there."""
    with pytest.raises(BadBundle, match=why) as caught:
        Runner(root).models.import_bundle(io.BytesIO(bundle))
    private = root / ".llama_runner"
    assert [path.name for path in root.iterdir()] == [".llama_runner"]
    assert {path.name for path in private.iterdir()} <= {"locks", "staging"}
    assert not any((private / "staging").glob("*"))
    return caught.value


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def model_of(manifest: Manifest) -> Manifest:
    return next(entry for entry in manifest["artifacts"] if entry["files"])


KINDS = {
    "link": (tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": (tarfile.LNKTYPE, "bundle.json"),
    "device": (tarfile.CHRTYPE, ""),
    "fifo": (tarfile.FIFOTYPE, ""),
    "directory": (tarfile.DIRTYPE, ""),
    "sparse": (tarfile.GNUTYPE_SPARSE, ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_14_06_a_member_that_is_no_plain_file_is_refused(bundle: bytes, tmp_path: Path, kind: str) -> None:
    first, (model, _) = members_of(bundle)
    refused(tmp_path, packed([first, (member(model.name, *KINDS[kind]), b"")]), "no file|neither a file|damaged")


@pytest.mark.parametrize("name", ["/etc/x", "../x", "models/gguf/../../x", "x", "MODELS/GGUF/x", "a\nb", "a" * 5000])
def test_14_06_a_member_that_the_manifest_does_not_list_is_refused(bundle: bytes, tmp_path: Path, name: str) -> None:
    first, second = members_of(bundle)
    refused(tmp_path, packed([first, (member(name), b"x"), second]), "is where .* belongs")
    (tmp_path / "2").mkdir()
    refused(tmp_path / "2", packed([first, second, (member(name), b"x")]), "is not in its bundle.json")


def test_14_06_a_member_that_is_missing_or_there_twice_is_refused(bundle: bytes, tmp_path: Path) -> None:
    first, second = members_of(bundle)
    for index, members in enumerate([[first], [second], [first, second, second], [first, first, second], []]):
        root = tmp_path / str(index)
        root.mkdir()
        refused(root, packed(members), "missing|begin|not in its|belongs|neither")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_14_06_a_truncated_bundle_is_refused(bundle: bytes, tmp_path: Path, share: float) -> None:
    refused(tmp_path, bundle[: int(len(bundle.rstrip(b"\0")) * share)], "empty|damaged|ends early|neither|other bytes")
    whole = zstandard.ZstdCompressor().compress(bundle)
    (tmp_path / "z").mkdir()
    refused(tmp_path / "z", whole[: int(len(whole) * share)], "empty|damaged|ends early|neither|other bytes|begin")


def test_14_06_bytes_that_do_not_match_their_digest_are_refused(bundle: bytes, tmp_path: Path) -> None:
    first, (info, content) = members_of(bundle)
    refused(tmp_path, packed([first, (info, content[:-1] + b"!")]), "other bytes than its digest says")
    (tmp_path / "2").mkdir()
    refused(tmp_path / "2", packed([first, (info, content + b"!")]), "bytes, and its bundle.json says")


@pytest.mark.parametrize(("fact", "value"), [("context_length", 1 << 20), ("architecture", "gpt2")])
def test_14_06_facts_that_the_header_of_the_model_does_not_have_are_refused(
    bundle: bytes, tmp_path: Path, fact: str, value: object
) -> None:
    changed = with_manifest(bundle, lambda manifest: model_of(manifest)["record"]["facts"].update({fact: value}))
    refused(tmp_path, changed, f"the record says {fact} {value!r}, its header ")


def test_14_06_bombs_are_refused_before_they_fill_the_disk(bundle: bytes, tmp_path: Path) -> None:
    first, (info, content) = members_of(bundle)
    bomb = zstandard.ZstdCompressor().compress(packed([first]) + bytes(80 << 20))
    refused(tmp_path, bomb, "hold")
    late = zstandard.ZstdCompressor().compress(packed([first, (info, content)]) + bytes(80 << 20))
    (tmp_path / "2").mkdir()
    refused(tmp_path / "2", late, "hold")
    huge = member("bundle.json")
    huge.size = 1 << 40
    (tmp_path / "3").mkdir()
    refused(tmp_path / "3", huge.tobuf() + bytes(1 << 20), "its bundle.json has 1.0 TiB")


def _grown(manifest: Manifest) -> None:
    entry = model_of(manifest)
    entry["record"]["output"]["bytes"] = entry["files"][0][2] = 1 << 60


def test_14_06_more_than_the_disk_has_room_for_is_refused_at_once(
    bundle: bytes, tmp_path: Path, llama_runner: Command
) -> None:
    (tmp_path / "b.tar").write_bytes(with_manifest(bundle, _grown))
    says(
        llama_runner("models", "import", tmp_path / "b.tar", "--root", tmp_path / "root"), 7, "no space left", "needed"
    )


Change = Callable[[Manifest], object]


def _of_record(**changed: Any) -> Change:
    return lambda manifest: model_of(manifest)["record"].update(changed)


def _of_model(**changed: Any) -> Change:
    return lambda manifest: model_of(manifest).update(changed)


def _moved(directory: str) -> Change:
    return _of_model(directory=directory)


def _digest_of_download(manifest: Manifest) -> None:
    """Make a downloaded file of the model, with another digest than the Hub published."""
    record = model_of(manifest)["record"]
    record["recipe"] = {
        "step": "download",
        "version": 1,
        "params": {"files": [["m", "sha256:" + 64 * "0"]]},
        "inputs": {},
    }
    record["key"] = key_of(record["recipe"])


def _twice(manifest: Manifest) -> None:
    other = copy.deepcopy(model_of(manifest))
    other["directory"] = other["directory"].upper().replace("MODELS/GGUF/", "models/gguf/")
    manifest["artifacts"].append(other)


def _below(manifest: Manifest) -> None:
    other = copy.deepcopy(model_of(manifest))
    other["directory"] += f"/{other['name']}"
    manifest["artifacts"].append(other)


def _within(manifest: Manifest) -> None:
    """Put a model into the directory of another one."""
    other = copy.deepcopy(model_of(manifest))
    _, _, size, digest = other["files"][0]
    other["directory"] += "/sharded"
    inner = copy.deepcopy(other)
    other["name"], other["files"] = ".", [["x.gguf", "f", size, digest]]
    other["record"]["output"]["digest"] = tree_digest([("x.gguf", "f", digest)])
    manifest["artifacts"] += [other, inner]


def _programs(manifest: Manifest) -> None:
    """Call the model a tree with a program in it."""
    entry = model_of(manifest)
    name, _, size, digest = entry["files"][0]
    entry["name"], entry["files"] = ".", [[name, "x", size, digest]]
    entry["record"]["output"]["digest"] = tree_digest([(name, "x", digest)])


def _pin(**changed: Any) -> Change:
    pin = {"schema": 1, "repo": "org/model", "names": {}, "quantizations": [], "pins": {}}
    return lambda manifest: manifest["pins"].append({**pin, **changed})


FILES = {"files": [["../x", 1, None, ""]], "gguf": None, "described": False}
CHANGES: dict[str, tuple[Change, str]] = {
    "another schema": (lambda m: m.update(schema=3), "schema 3, and this program reads 1 and 2"),
    "the schema of other digests": (lambda m: m.update(schema=2), "schema 2, and its digests are of schema 1"),
    "another format": (lambda m: m.update(format="x"), "is not that of a bundle"),
    "a key that does not follow": (_of_record(key="k1:" + 64 * "0"), "its key is k1:0+, and its recipe gives"),
    "a recipe that was changed": (_of_record(recipe={"step": "quantize"}), "and its recipe gives"),
    "a record of no form": (_of_record(output=[]), "record in it is invalid"),
    "a foreign digest scheme": (_of_record(output={"digest": "md5:0", "bytes": 1, "stamp": {}}), "digest scheme"),
    "another digest than was published": (_digest_of_download, "its recipe names sha256:0"),
    "a negative size": (lambda m: model_of(m)["record"]["output"].update(bytes=-1), "size is -1"),
    "files of another size": (lambda m: model_of(m)["files"][0].__setitem__(2, 5), "are not those of its record"),
    "files of another digest": (
        lambda m: model_of(m)["files"][0].__setitem__(3, "sha256:" + 64 * "0"), "are not those of its record"),
    "a program in a model": (_programs, "has programs or links"),
    "a link elsewhere": (_of_model(files=[["x", "l", 0, "/etc/passwd"]]), "leave the directory"),
    "a place above": (_moved("models/gguf/.."), "leave the directory"),
    "an absolute place": (_moved("/models/gguf/x"), "leave the directory"),
    "a place among ours": (_moved(".llama_runner/servers/x"), "is no path of an artifact"),
    "a place of logs": (_moved("logs/gguf/x"), "no artifact lies there"),
    "a place of programs": (_moved("bins/linux-x86_64/cpu-1"), "no artifact lies there|called"),
    "a place of sources": (_moved("vendor/x"), "it has the files of vendor"),
    "a place that is too deep": (_moved("models/gguf/a/b/c"), "no artifact lies there"),
    "a place on Windows": (_moved("models/gguf/a:b"), "leave the directory"),
    "a state file": (_of_model(name=".state.json"), "is no path of an artifact"),
    "control characters": (_moved("models/gguf/a\x1b[31m"), "is no name"),
    "text that is none": (_moved("models/gguf/\ud800"), "is no name|damaged"),
    "the same twice": (lambda m: m["artifacts"].append(model_of(m)), "is there twice"),
    "the same but for case": (_twice, "is there twice"),
    "a file below a file": (_below, "lies below a file"),
    "an artifact in another": (_within, "lies in another artifact"),
    "a pin of no repository": (_pin(repo="../x"), "not the name of a model"),
    "a pin with a file above": (_pin(pins={40 * "a": FILES}), "org/model"),
    "a pin of no commit": (_pin(pins={"main": FILES}), "'main' is no commit"),
    "a description that is in no pin": (
        lambda m: m["descriptions"].append(["org__model__a", "config.json", 1, "sha256:" + 64 * "0"]), "in no pin"),
    "a description above": (
        lambda m: m["descriptions"].append(["..", "config.json", 1, "sha256:" + 64 * "0"]), "leave the directory"),
    "not a list": (lambda m: m.update(artifacts=5), "damaged"),
    "nothing": (dict.clear, "is not that of a bundle"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_14_06_a_manifest_that_was_changed_is_refused(bundle: bytes, tmp_path: Path, change: str) -> None:
    how, why = CHANGES[change]
    refused(tmp_path, with_manifest(bundle, how), why)


def test_14_06_a_manifest_that_is_nested_too_deeply_or_no_json_is_refused(bundle: bytes, tmp_path: Path) -> None:
    (info, _), second = members_of(bundle)
    for index, content in enumerate([b"[" * 100_000, b"{", b"\xff", b'{"format": NaN}', b"[]"]):
        root = tmp_path / str(index)
        root.mkdir()
        refused(root, packed([(info, content), second]), "nested|damaged|is not that of a bundle")


def test_14_06_records_of_another_machine_bring_no_stamps_and_paths(bundle: bytes, tmp_path: Path) -> None:
    def boast(manifest: Manifest) -> None:
        record = model_of(manifest)["record"]
        record["source"] |= {"ref": "/home/you/model", "files": {"a": {"digest": "sha256:0", "stamp": {"size": 1}}}}
        record["made"] |= {"log": "../../x", "kept": "yes"}
        record["noted"]["c"] = {"path": "/usr/bin/cc", "stamp": {}}

    Runner(tmp_path).models.import_bundle(io.BytesIO(with_manifest(bundle, boast)))
    (state,) = tmp_path.glob("models/gguf/*/.state.json")
    record = json.loads(state.read_text())["artifacts"]["model.q4_k_m.gguf"]
    assert "ref" not in record["source"]
    assert record["source"]["files"] == {"a": {"digest": "sha256:0", "stamp": None}}
    assert not {"log", "kept"} & record["made"].keys()
    assert "c" not in record["noted"]


def test_14_06_a_bundle_replaces_nothing_that_is_here(bundle: bytes, tmp_path: Path) -> None:
    def as_tree(manifest: Manifest) -> None:
        """Call the directory of the model an artifact."""
        entry = model_of(manifest)
        name, _, size, digest = entry["files"][0]
        entry["name"], entry["files"] = ".", [[name, "f", size, digest]]
        entry["record"]["output"]["digest"] = tree_digest([(name, "f", digest)])
        manifest["artifacts"] = [entry]

    for first, second in ((lambda _m: None, as_tree), (as_tree, lambda _m: None)):
        root = tmp_path / first.__name__
        runner = Runner(root)
        runner.models.import_bundle(io.BytesIO(with_manifest(bundle, first)))
        (model,) = root.glob("models/gguf/*/model.q4_k_m.gguf")
        before = model.stat()
        state = model.with_name(".state.json").read_bytes()
        found = runner.models.import_bundle(io.BytesIO(with_manifest(bundle, second)))
        assert found.artifacts == ()
        assert model.stat() == before
        assert model.with_name(".state.json").read_bytes() == state


def test_14_06_a_directory_without_records_stays(bundle: bytes, tmp_path: Path) -> None:
    def as_tree(manifest: Manifest) -> None:
        entry = model_of(manifest)
        name, _, size, digest = entry["files"][0]
        entry["directory"], entry["name"] = "models/gguf/mine", "."
        entry["files"] = [[name, "f", size, digest]]
        entry["record"]["output"]["digest"] = tree_digest([(name, "f", digest)])

    mine = tmp_path / "models" / "gguf" / "mine" / "precious.gguf"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    first, (info, content) = members_of(with_manifest(bundle, as_tree))
    info.name = "models/gguf/mine/model.q4_k_m.gguf"
    Runner(tmp_path).models.import_bundle(io.BytesIO(packed([first, (info, content)])))
    assert [path.name for path in mine.parent.iterdir()] == ["precious.gguf"]


def test_14_06_what_a_newer_version_wrote_is_left_as_it_is(
    bundle: bytes, binaries: Path, tmp_path: Path, llama_runner: Command
) -> None:
    (tmp_path / "b.tar").write_bytes(bundle)
    root = tmp_path / "root"
    assert llama_runner("models", "import", tmp_path / "b.tar", "--root", root).code == 0
    (state,) = root.glob("models/gguf/*/.state.json")
    value = json.loads(state.read_text())
    for record in value["artifacts"].values():
        record["schema"] = 99
    state.write_text(json.dumps(value))
    model = state.with_name("model.q4_k_m.gguf")
    model.write_bytes(b"of a newer version")
    done = llama_runner("models", "import", tmp_path / "b.tar", "--root", root)
    assert done.code == 0, done
    assert "this version cannot read its record" in done.err
    assert model.read_bytes() == b"of a newer version"
    assert json.loads(state.read_text())["artifacts"]["model.q4_k_m.gguf"]["schema"] == 99


@pytest.mark.parametrize("kind", ["fifo", "directory", "missing", "text", "loop"])
def test_14_06_a_path_that_is_no_bundle_is_an_error(tmp_path: Path, llama_runner: Command, kind: str) -> None:
    path = tmp_path / "b\x1b[31m.tar"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "text":
            path.write_text("no bundle" * 100)
        case "loop":
            path.symlink_to(path)
    done = llama_runner("models", "import", path, "--root", tmp_path / "root")
    says(done, 3)
    assert "\x1b" not in done.err
