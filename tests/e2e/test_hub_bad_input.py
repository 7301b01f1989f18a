"""Whatever is wrong with a name or with what is on the Hub, there is one clear error, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import Command, says
from tests.fakehub.hub import Hub
from tests.fakehub.models import write_gguf

pytestmark = pytest.mark.usefixtures("user_of_the_hub")

REPO = "acme/model"
MIB = 1 << 20


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """Return a GGUF file of a megabyte."""
    return write_gguf(tmp_path / "made.gguf", MIB)


def fetched(hub: Hub) -> list[str]:
    return [request.path for request in hub.requests if "/resolve/" in request.path]


def untouched(root: Path) -> bool:
    """Whether nothing was made below ``root`` but notes on what the Hub said."""
    return not [path for path in root.iterdir() if path.name not in ("bins", ".llama_runner")]


# --- names ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("acme/..", ". and .. are no part of a name"),
        ("../acme/model", "../acme/model"),
        ("acme/model/../../other", "acme/model/../../other"),
        ("acme/model@../../x", "what stands after @ or : is no revision"),
        ("acme/model:..", "what stands after @ or : is no revision"),
        ("acme/mo\x1b[31mdel", "control characters"),
        ("acme/mo\ndel", "control characters"),
        ("acme/mo del", "spaces"),
        (f"acme/{'m' * 300}", "305 characters"),
        (f"acme/{'m' * 1000}", "1005 characters"),
        (f"acme/model@{'v' * 300}", "is no revision"),
        ("acme/mödel", "characters other than A-Z"),
        ("/acme/model", "/acme/model"),
        ("C:\\acme\\model", "backslashes"),
        ("acme/model@", "missing after @"),
        ("acme/model:Q8_0:Q8_0", "more than one"),
        ("https://huggingface.co/datasets/acme/model", "datasets"),
        ("https://example.org/acme/model", "example.org is not the Hub"),
        ("https://user:secret@example.org/acme/model", "user name or a password"),
        ("ftp://huggingface.co/acme/model", "ftp://"),
        ("", ""),
    ],
)
def test_a_name_that_can_be_none_is_refused_before_anything_is_asked(
    hub: Hub, root: Path, llama_runner: Command, name: str, text: str
) -> None:
    for command in ("plan", "prepare", "run"):
        result = llama_runner(command, "--hf-model", name, "--root", root)
        says(result, 2, text)
        assert "secret" not in result.err
        assert "\x1b" not in result.err
        assert len(result.err) < 1000
    assert hub.requests == []
    assert untouched(root)


@pytest.mark.parametrize(
    "file", ["../../etc/passwd", "/etc/passwd", "a/../../b.gguf", "..", "a\x00b.gguf", f"{'x' * 300}.gguf"]
)
def test_a_file_that_is_asked_for_never_leads_out_of_the_repository(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, file: str
) -> None:
    hub.repo(REPO, {"m-Q8_0.gguf": gguf})
    if "\x00" not in file:  # no argument can have one
        says(llama_runner("prepare", REPO, "--filename", file, "--root", root), 3, "m-Q8_0.gguf")
    says(llama_runner("prepare", f"{hub.url}/{REPO}/resolve/main/{file}".replace("\x00", "%00"), "--root", root), 2)
    assert fetched(hub) == []
    assert untouched(root)


# --- listings ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("../x.gguf", "leave the directory"),
        ("a/../../x.gguf", "leave the directory"),
        ("/etc/x.gguf", "leave the directory"),
        ("a//x.gguf", "leave the directory"),
        ("./x.gguf", "leave the directory"),
        ("C:\\x.gguf", "leave the directory"),
        ("C:/x.gguf", "leave the directory"),
        ("x\x1b[2J.gguf", "control characters"),
        ("x\n.gguf", "control characters"),
        (f"{'x' * 300}.gguf", "too long"),
        ("m-Q8_0.gguf/x.gguf", "is a file as well"),
        ("", "a file is called ''"),
    ],
)
def test_a_listing_with_a_name_that_would_leave_its_directory_is_refused_as_a_whole(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, name: str, text: str
) -> None:
    hub.repo(REPO, {"m-Q8_0.gguf": gguf}).extra_names.append(name)
    for command in ("plan", "prepare"):
        result = llama_runner(command, REPO, "--root", root)
        says(result, 3 if name else 4, text)
        assert "\x1b" not in result.err
    assert fetched(hub) == []
    assert untouched(root)


@pytest.mark.parametrize("size", [10, 2 * MIB])
def test_a_listing_that_lies_about_a_size_is_found_before_the_file_is_received(
    hub: Hub, root: Path, llama_runner: Command, tmp_path: Path, size: int
) -> None:
    model = write_gguf(tmp_path / "big.gguf", 30 * MIB)
    hub.repo(REPO, {"m-Q8_0.gguf": model}).sizes["m-Q8_0.gguf"] = size
    result = llama_runner("prepare", REPO, "--root", root)
    says(result, 4, f"has {model.stat().st_size} bytes, and the repository lists it with {size}")
    assert hub.bytes_sent("m-Q8_0.gguf") < 25 * MIB
    assert not list((root / "models").rglob("*.gguf"))


@pytest.mark.parametrize(
    ("size", "code", "text"), [(-1, 4, "-1"), (1 << 50, 7, "1024.0 TiB needed"), (1 << 70, 4, str(1 << 70))]
)
def test_a_size_that_cannot_be_is_refused_at_once(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, size: int, code: int, text: str
) -> None:
    hub.repo(REPO, {"m-Q8_0.gguf": gguf}).sizes["m-Q8_0.gguf"] = size
    says(llama_runner("prepare", REPO, "--root", root), code, text)
    assert fetched(hub) == []
    assert not list((root / "models").rglob("*.gguf"))


def test_an_empty_repository_has_nothing_to_run(hub: Hub, root: Path, llama_runner: Command) -> None:
    hub.repo(REPO, {})
    says(llama_runner("prepare", REPO, "--root", root), 3, "has neither a GGUF model nor safetensors, but no files")
    hub.repo(REPO, {"README.md": b"#", "model.pt": b"pickle", ".gitattributes": b""})
    says(llama_runner("prepare", REPO, "--root", root, "--update"), 3, "*.md, *.pt")


def test_shards_that_are_missing_from_the_middle_are_named_before_any_is_fetched(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path
) -> None:
    hub.repo(REPO, {f"m-Q8_0-{number:05}-of-00004.gguf": gguf for number in (1, 2, 4)})
    for command in ("plan", "prepare"):
        says(llama_runner(command, REPO, "--root", root), 3, "one of 4 shards", "m-Q8_0-00003-of-00004.gguf")
    assert fetched(hub) == []
    assert untouched(root)


def test_two_files_whose_names_differ_only_in_case_are_two_files(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, tmp_path: Path
) -> None:
    other = write_gguf(tmp_path / "other.gguf", MIB, seed=8)
    hub.repo(REPO, {"m-Q8_0.gguf": gguf, "m-q8_0.gguf": other})
    says(llama_runner("prepare", REPO, "--root", root), 3, "m-Q8_0.gguf", "m-q8_0.gguf", "--filename NAME")
    assert fetched(hub) == []
    made = {}
    for name in ("m-Q8_0.gguf", "m-q8_0.gguf"):
        result = llama_runner("prepare", REPO, "--filename", name, "--root", root, "--json")
        made[name] = Path(result.json["model"]).read_bytes()
    assert made == {"m-Q8_0.gguf": gguf.read_bytes(), "m-q8_0.gguf": other.read_bytes()}


# --- content ---


@pytest.mark.parametrize("start", [b"<htm", b"PK\x03\x04", b"\x00\x00\x00\x00", b"gguf"])
def test_a_gguf_that_is_none_is_found_with_its_first_bytes(
    hub: Hub, root: Path, llama_runner: Command, tmp_path: Path, start: bytes
) -> None:
    bad = tmp_path / "bad.gguf"
    with bad.open("wb") as file:
        file.write(start)
        file.truncate(200 * MIB)
    hub.repo(REPO, {"m-Q8_0.gguf": bad})
    says(llama_runner("prepare", REPO, "--root", root), 4, "is not a GGUF file", repr(start))
    assert hub.bytes_sent("m-Q8_0.gguf") < 40 * MIB
    assert not [path for path in root.rglob("*Q8_0*") if path.is_file()]
    assert llama_runner("status", "--root", root, "--json").code == 0


def test_a_gguf_that_its_makers_cut_off_is_not_taken_for_whole(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path
) -> None:
    """Its digest agrees with the listing: that is what the repository holds."""
    hub.repo(REPO, {"m-Q8_0.gguf": gguf.read_bytes()[:-1000], "k-Q4_K_M.gguf": gguf.read_bytes()[:50]})
    for name in ("m-Q8_0.gguf", "k-Q4_K_M.gguf"):
        says(llama_runner("prepare", REPO, "--filename", name, "--root", root), 3, "truncated", f"{REPO}/{name}")
        assert not list((root / "models").rglob(name))


@pytest.mark.parametrize("config", [b"", b"{", b"[]", b'{"architectures": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_config_that_is_none_is_found_before_any_weights(
    hub: Hub, root: Path, llama_runner: Command, config: bytes
) -> None:
    hub.repo(REPO, {"config.json": config, "model.safetensors": b"x" * MIB, "tokenizer.json": b"{}"})
    for command in ("plan", "prepare"):
        says(llama_runner(command, REPO, "--root", root), 3, "config.json")
    assert hub.bytes_sent("model.safetensors") == 0


def test_a_repository_that_lacks_its_config_or_its_index_is_not_complete(
    hub: Hub, root: Path, llama_runner: Command
) -> None:
    hub.repo(REPO, {"model.safetensors": b"x", "tokenizer.json": b"{}"})
    says(llama_runner("prepare", REPO, "--root", root), 3, "config.json")
    assert hub.bytes_sent("model.safetensors") == 0


# --- what changes meanwhile ---


def test_a_repository_that_vanishes_between_plan_and_fetch_is_told_and_comes_back(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path
) -> None:
    repo = hub.repo(REPO, {"m-Q8_0.gguf": gguf})
    hub.fault("vanish")
    says(llama_runner("prepare", REPO, "--root", root), 4, f"{REPO} does not exist", "m-Q8_0.gguf")
    assert not list((root / "models").rglob("*.gguf"))
    hub.repos[REPO] = repo
    assert llama_runner("prepare", REPO, "--root", root).code == 0


def test_when_a_branch_moves_between_two_calls_everything_still_comes_from_one_commit(
    hub: Hub, root: Path, llama_runner: Command, tmp_path: Path
) -> None:
    old, new = (
        {f"m-Q8_0-{n:05}-of-00002.gguf": write_gguf(tmp_path / f"{seed}-{n}", MIB, seed=seed + n) for n in (1, 2)}
        for seed in (0, 10)
    )
    repo = hub.repo(REPO, old)
    first = repo.head
    hub.fault("moving_branch", changes=new)
    result = llama_runner("prepare", REPO, "--root", root, "--json")
    assert repo.head != first
    assert {path.split("/resolve/")[1].split("/")[0] for path in fetched(hub)} == {first}
    directory = Path(result.json["model"]).parent
    assert {name: (directory / name).read_bytes() for name in old} == {
        name: path.read_bytes() for name, path in old.items()
    }
    assert first in (directory / ".state.json").read_text()
    hub.reset_log()
    assert llama_runner("prepare", REPO, "--root", root, "--json").json["ran"] == []
    assert hub.requests == []
    shutil.rmtree(directory)
    assert llama_runner("prepare", REPO, "--root", root, "--json").json["ran"] == ["download"]
    assert {path.split("/resolve/")[1].split("/")[0] for path in fetched(hub)} == {first}, "the pin holds"
