"""From a name on the Hub to an answering server: the real huggingface_hub, a hub on loopback, the real llama.cpp."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY
from tests.conftest import MODULE, Command, says
from tests.e2e.serving import Running, ask
from tests.fakehub.hub import Hub
from tests.sources.gguf_files import split

Children = list["subprocess.Popen[str]"]


@pytest.fixture
def environment(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hub on loopback the Hub, for this process and its children, of a user who has nothing of it yet."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf home"))


pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture(scope="session")
def ggufs(binaries: Path) -> dict[str, Path]:
    """Return the demo model in several types."""
    runner = Runner(binaries)
    return {name: runner.prepare(demo=True, quantization=name).model for name in ("q8_0", "q4_k_m", "bf16")}


def demo_files() -> dict[str, bytes | Path]:
    """Return the demo model as a repository of safetensors has it, with what must not be fetched beside it."""
    files: dict[str, bytes | Path] = {path.name: path for path in MODEL_DIRECTORY.iterdir() if path.is_file()}
    return {**files, "modeling_demo.py": b"raise SystemExit", "pytorch_model.bin": b"pickle", "original/x.pth": b"p"}


def paths_asked(hub: Hub) -> list[str]:
    return [request.path for request in hub.requests]


def gguf_names(hub: Hub) -> list[str]:
    """Return the GGUF files that were fetched."""
    return [Path(path).name for path in paths_asked(hub) if "/resolve/" in path and ".gguf" in path]


def test_safetensors_on_the_hub_end_as_an_answering_server(
    hub: Hub, root: Path, children: Children, ggufs: dict[str, Path]
) -> None:
    hub.repo("acme/demo", demo_files())
    running = Running(children, "--hf-model", "acme/demo", "--root", root)
    assert [event["step"] for event in running.of("step_started")] == ["download", "convert", "quantize"]
    assert ask(running.url, "what is a step?") == EXAMPLES[0][1]
    running.process.send_signal(signal.SIGINT)
    running.finish()
    fetched = [path for path in paths_asked(hub) if "/resolve/" in path]
    assert not [path for path in fetched if path.endswith((".py", ".bin", ".pth"))]
    made = next((root / "models" / "gguf").glob("acme__demo__*/model.q4_k_m.gguf"))
    name = made.parent.name
    assert {path.name for path in (root / "models" / "safetensors" / name).iterdir()} >= {"model.safetensors"}
    local = Runner(root).prepare(safetensors_dir=root / "models" / "safetensors" / name, quantization="q4_k_m")
    assert local.sha256 is not None


def test_a_gguf_on_the_hub_is_chosen_in_the_open_and_served(
    hub: Hub, root: Path, children: Children, ggufs: dict[str, Path]
) -> None:
    hub.repo("acme/demo-GGUF", {f"demo-{name.upper()}.gguf": path for name, path in ggufs.items()})
    running = Running(children, "acme/demo-GGUF", "--root", root)
    assert ask(running.url, "what is a step?") == EXAMPLES[0][1]
    (chosen,) = running.of("chosen")
    assert chosen["files"] == ["demo-Q4_K_M.gguf"]
    assert chosen["bytes"] == ggufs["q4_k_m"].stat().st_size
    names = [event["event"] for event in running.events]
    assert names.index("chosen") < names.index("step_started"), "the choice is shown before the transfer"
    running.process.terminate()
    running.finish()
    (file,) = (root / "models" / "gguf").glob("acme__demo-GGUF__*/demo-Q4_K_M.gguf")
    assert file.read_bytes() == ggufs["q4_k_m"].read_bytes()


def test_each_spelling_of_a_name_finds_its_file(
    hub: Hub, root: Path, llama_runner: Command, ggufs: dict[str, Path]
) -> None:
    repo = hub.repo("acme/demo", {f"demo.{name}.gguf": path for name, path in ggufs.items()})
    first = repo.head
    repo.branch("Q4_K_M", first)  # a branch that is called like a quantization
    repo.pull_request(1, first)
    repo.commit({"demo.q8_0.gguf": None})
    spelled = {
        "acme/demo:Q8_0": None,  # no branch of that name, and the main branch has no such file any more
        "acme/demo:Q4_K_M": "demo.q4_k_m.gguf",
        f"acme/demo@{first}:q8_0": "demo.q8_0.gguf",
        f"acme/demo:{first[:10]}": "demo.q4_k_m.gguf",
        "acme/demo@refs/pr/1:Q8_0": "demo.q8_0.gguf",
        "hf://acme/demo": "demo.q4_k_m.gguf",
        f"{hub.url}/acme/demo": "demo.q4_k_m.gguf",
        f"{hub.url}/acme/demo/resolve/{first}/demo.q8_0.gguf?download=true": "demo.q8_0.gguf",
        f"{hub.url}/acme/demo/blob/main/demo.bf16.gguf": "demo.bf16.gguf",
    }
    for name, expected in spelled.items():
        result = llama_runner("plan", "--hf-model", name, "--root", root, "--json")
        if expected is None:
            says(result, 3, "Q8_0", "demo.bf16.gguf", "MiB")
            continue
        assert result.code == 0, result
        assert Path(result.json["launch"]["argv"][2]).name == expected, name
    plan = llama_runner("plan", "--hf-model", "acme/demo:Q4_K_M", "--root", root, "--json")
    assert plan.json["source"]["revision"] == first, "the branch wins"
    noted = llama_runner("plan", "--hf-model", "acme/demo:BF16", "--root", root)
    assert "no branch, tag or commit called BF16" in noted.err
    says(llama_runner("plan", "--hf-model", "acme/demo:banana", "--root", root), 3, "banana", "Q4_K_M", "main")


def test_pain_07_a_warm_rerun_makes_no_request(
    hub: Hub, root: Path, llama_runner: Command, ggufs: dict[str, Path]
) -> None:
    hub.repo("acme/demo-GGUF", {"demo-Q8_0.gguf": ggufs["q8_0"]})
    hub.repo("acme/demo", demo_files())
    names = ("acme/demo-GGUF", "acme/demo-GGUF:Q8_0", "acme/demo", "acme/demo:Q8_0")
    for name in names:
        assert llama_runner("prepare", name, "--root", root).code == 0
    hub.reset_log()
    code = (
        "import socket, sys\n"
        "def refuse(*arguments, **options): raise AssertionError('a socket was connected')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from llama_runner import Runner\n"
        "for name in sys.argv[2:]:\n"
        "    assert Runner(sys.argv[1]).prepare(name).ran == (), name\n"
        "    Runner(sys.argv[1]).plan(name)\n"
        "heavy = {'huggingface_hub', 'httpx2', 'filelock', 'sqlite3', 'numpy', 'concurrent.futures'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(root), *names], check=True)
    assert hub.requests == []


def test_pain_07_everything_is_there_offline_and_what_is_not_is_named_at_once(
    hub: Hub, root: Path, llama_runner: Command, ggufs: dict[str, Path]
) -> None:
    hub.repo("acme/demo", {"demo-Q8_0.gguf": ggufs["q8_0"], "demo-Q4_K_M.gguf": ggufs["q4_k_m"]})
    assert llama_runner("prepare", "acme/demo:Q8_0", "--root", root).code == 0
    hub.reset_log()
    for options, env in ((("--offline",), {}), ((), {"HF_HUB_OFFLINE": "1"})):
        assert llama_runner("prepare", "acme/demo:Q8_0", "--root", root, *options, env=env).code == 0
        says(
            llama_runner("prepare", "acme/demo", "-q", "q4_k_m", "--root", root, *options, env=env),
            3,
            "demo-Q4_K_M.gguf of acme/demo is not here",
        )
        other = llama_runner("prepare", "acme/other", "--root", root, *options, env=env)
        says(other, 3, "acme/other at main is not here")
    assert hub.requests == []


def test_a_plan_on_a_cold_store_asks_little_and_writes_nothing(hub: Hub, root: Path, llama_runner: Command) -> None:
    hub.repo("acme/demo", demo_files())
    plan = llama_runner("plan", "acme/demo:Q8_0", "--root", root, "--json").json
    assert len(hub.requests) <= 6
    actions = {step["name"]: step["action"] for step in plan["steps"]}
    assert (actions["download"], actions["convert"], actions["quantize"]) == ("run", "wait", "wait")
    assert plan["needs"]["fetch"] > 1_000_000
    assert sorted(path.name for path in root.iterdir()) == ["bins"]


def test_pain_04_a_rerun_stays_with_its_commit_until_an_update_is_asked_for(
    hub: Hub, root: Path, llama_runner: Command, ggufs: dict[str, Path]
) -> None:
    readme = {"README.md": b"---\nlicense: mit\n---\n# one\n"}
    repo = hub.repo("acme/demo", {**demo_files(), **readme})
    first = llama_runner("prepare", "acme/demo", "--root", root, "--json").json
    repo.commit({"README.md": b"---\nlicense: apache-2.0\n---\n# two\n", "NEWS.md": b"news"})
    hub.reset_log()
    assert llama_runner("prepare", "acme/demo", "--root", root, "--json").json["ran"] == []
    assert hub.requests == [], "nobody asked whether something changed"

    plan = llama_runner("plan", "acme/demo", "--root", root, "--update")
    for text in ("was", "is", "changed README.md", "new     NEWS.md"):
        assert text in plan.err
    assert llama_runner("prepare", "acme/demo", "--root", root, "--json").json["model"] == first["model"]

    hub.reset_log()
    second = llama_runner("prepare", "acme/demo", "--root", root, "--update", "--json").json
    assert second["ran"] == ["download", "convert", "quantize"]
    assert second["model"] != first["model"]
    assert not [path for path in paths_asked(hub) if "model.safetensors" in path and "index" not in path]
    assert Path(first["model"]).exists(), "the old revision is still there"
    assert llama_runner("prepare", "acme/demo", "--root", root, "--json").json["model"] == second["model"]
    assert llama_runner("prepare", f"acme/demo@{repo.parents(repo.head)[0]}", "--root", root, "--offline").code == 0


def test_pain_04_the_old_revision_is_what_the_name_means_until_the_new_one_is_complete(
    hub: Hub, root: Path, llama_runner: Command, ggufs: dict[str, Path]
) -> None:
    repo = hub.repo("acme/demo", {"demo-Q8_0.gguf": ggufs["q8_0"]})
    first = llama_runner("prepare", "acme/demo", "--root", root, "--json").json
    repo.commit({"demo-Q8_0.gguf": ggufs["bf16"]})
    hub.fault("403", path="*/resolve/*", times=None)
    failed = llama_runner("prepare", "acme/demo", "--root", root, "--update")
    assert failed.code == 4, failed
    assert llama_runner("prepare", "acme/demo", "--root", root, "--json").json == {
        **first,
        "ran": [],
        "skipped": ["download", "fetch", "unpack", "compile"],
        "seconds": pytest.approx(0, abs=60),
    }


def test_pain_06_a_model_in_several_files_is_one_model(
    hub: Hub, root: Path, children: Children, tmp_path: Path, ggufs: dict[str, Path]
) -> None:
    shards = split(ggufs["bf16"], tmp_path / "demo-BF16.gguf")
    assert len(shards) > 2
    hub.repo("acme/demo", {f"BF16/{shard.name}": shard for shard in shards})
    running = Running(children, "acme/demo", "--root", root)
    assert ask(running.url, "what is a step?") == EXAMPLES[0][1]
    (directory,) = (root / "models" / "gguf").glob("acme__demo__*/*/")
    assert len(list(directory.glob("*.gguf"))) == len(shards)


def test_pain_11_an_architecture_that_cannot_be_converted_is_told_before_any_weights(
    hub: Hub, root: Path, llama_runner: Command
) -> None:
    config = json.loads((MODEL_DIRECTORY / "config.json").read_text())
    files = {**demo_files(), "config.json": json.dumps({**config, "architectures": ["NopeForCausalLM"]}).encode()}
    hub.repo("acme/nope", files)
    for command in ("plan", "prepare"):
        hub.reset_log()
        says(llama_runner(command, "acme/nope", "--root", root), 3, "unsupported architecture: NopeForCausalLM")
        assert not [path for path in paths_asked(hub) if path.endswith((".safetensors", "tokenizer.json"))]


def test_pain_11_a_tokenizer_that_cannot_be_converted_is_told_before_any_weights(
    hub: Hub, root: Path, llama_runner: Command
) -> None:
    tokenizer = next(name for name in ("tokenizer.json", "tokenizer.model") if (MODEL_DIRECTORY / name).exists())
    hub.repo("acme/nope", {**demo_files(), tokenizer: b"{}"})
    says(llama_runner("prepare", "acme/nope", "--root", root), 3)
    assert not [path for path in paths_asked(hub) if path.endswith(".safetensors")]


def test_a_quantization_that_no_gguf_offers_is_made_from_the_safetensors_beside_them(
    hub: Hub, root: Path, llama_runner: Command, ggufs: dict[str, Path]
) -> None:
    hub.repo("acme/both", {**demo_files(), "demo-Q8_0.gguf": ggufs["q8_0"]})
    result = llama_runner("prepare", "acme/both", "-q", "q5_k_m", "--root", root, "--json")
    assert result.json["ran"] == ["download", "convert", "quantize"]
    assert "made here from the safetensors" in result.err
    says(llama_runner("prepare", "acme/both", "-q", "ud-q2_k_xl", "--root", root), 3, "demo-Q8_0.gguf")


def test_two_processes_fetch_a_file_once(hub: Hub, root: Path, ggufs: dict[str, Path], children: Children) -> None:
    hub.repo("acme/demo", {"demo-Q8_0.gguf": ggufs["q8_0"]})
    words = [*MODULE, "prepare", "acme/demo", "--root", str(root), "--json"]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(4)]
    children += started
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    assert sorted(answer["ran"] for answer in answers) == [[], [], [], ["download"]]
    assert hub.bytes_sent("demo-Q8_0.gguf") == ggufs["q8_0"].stat().st_size


def test_a_file_in_the_users_cache_is_used_and_never_changed(
    hub: Hub, root: Path, llama_runner: Command, ggufs: dict[str, Path], tmp_path: Path
) -> None:
    hub.repo("acme/demo", {"demo-Q8_0.gguf": ggufs["q8_0"]})
    hf = Path(sys.executable).with_name("hf")
    quiet = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run([hf, "download", "acme/demo"], check=True, env=quiet, capture_output=True)
    (cached,) = (tmp_path / "hf home").rglob("blobs/*")
    before = cached.stat()
    hub.reset_log()
    result = llama_runner("prepare", "acme/demo", "--root", root, "--json")
    assert hub.bytes_sent("demo-Q8_0.gguf") == 0
    assert "is on this machine already" in result.err
    shutil.rmtree(root / "models")
    after = cached.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_mode) == (before.st_mtime_ns, before.st_size, before.st_mode)
    with cached.open("r+b") as file:  # a damaged one is not taken
        file.seek(1000)
        file.write(b"damage")
    assert llama_runner("prepare", "acme/demo", "--root", root, "--json").json["ran"] == ["download"]
    assert hub.bytes_sent("demo-Q8_0.gguf") == before.st_size


def test_a_token_is_never_written_down(
    hub: Hub, root: Path, llama_runner: Command, ggufs: dict[str, Path], tmp_path: Path
) -> None:
    hub.tokens = {"hf_verysecret": {"accepted": {"acme/gated"}}}
    hub.repo("acme/gated", {**demo_files(), "x/demo-Q8_0.gguf": ggufs["q8_0"]}, gated=True)
    env = {"HF_TOKEN": "hf_verysecret"}
    for words in (("-q", "q8_0"), ("-q", "q5_k_m")):
        result = llama_runner("prepare", "acme/gated", *words, "--root", root, "--json", env=env)
        assert result.code == 0, result
        assert "hf_verysecret" not in result.out + result.err
    for path in root.rglob("*"):
        if path.is_file() and "bins" not in path.relative_to(root).parts:
            assert b"hf_verysecret" not in path.read_bytes(), path
    assert {request.authorization for request in hub.requests if request.which == "cdn"} == {None}
    file = tmp_path / "token"
    file.write_text("hf_verysecret\n")
    file.chmod(0o600)
    again = llama_runner("prepare", "acme/gated:q8_0", "--root", tmp_path / "new", "--token-file", file, "--offline")
    says(again, 3, "is not here")


def test_the_endpoint_is_not_in_the_key(hub: Hub, root: Path, llama_runner: Command, ggufs: dict[str, Path]) -> None:
    """PAINS 8: a mirror gives the same artifact."""
    hub.repo("acme/demo", {"demo-Q8_0.gguf": ggufs["q8_0"]})
    key = llama_runner("plan", "acme/demo", "--root", root, "--json").json["steps"][0]["key"]
    assert llama_runner("prepare", "acme/demo", "--root", root).code == 0
    mirror = {"HF_ENDPOINT": hub.url.replace("127.0.0.1", "localhost")}
    plan = llama_runner("plan", "acme/demo", "--root", root, "--json", "--update", env=mirror).json
    assert (plan["steps"][0]["key"], plan["steps"][0]["action"]) == (key, "skip")


def test_wishes_about_the_hub_make_no_sense_for_what_lies_here(llama_runner: Command, root: Path) -> None:
    says(llama_runner("plan", "--demo", "--filename", "x", "--update", "--root", root), 2, "--filename and --update")


def test_the_best_that_fits_is_chosen(hub: Hub, root: Path, llama_runner: Command, ggufs: dict[str, Path]) -> None:
    hub.repo("acme/demo", {f"demo-{name}.gguf": path for name, path in ggufs.items()})
    sizes = {name: path.stat().st_size for name, path in ggufs.items()}

    def planned(*words: object) -> Any:
        return Path(llama_runner("plan", "acme/demo", *words, "--root", root, "--json").json["launch"]["argv"][2]).name

    assert planned() == "demo-q4_k_m.gguf"
    assert planned("--max-size", sizes["q8_0"] + 10) == "demo-q8_0.gguf"
    assert planned("--fit-memory") == "demo-bf16.gguf"
    assert planned("--filename", "demo-bf16.gguf") == "demo-bf16.gguf"
    assert planned("--pattern", "*Q8*") == "demo-q8_0.gguf"
    says(llama_runner("plan", "acme/demo", "--max-size", "1K", "--root", root), 3, "demo-q4_k_m.gguf")


def test_pain_22_a_taken_port_is_found_before_anything_else(hub: Hub, root: Path, llama_runner: Command) -> None:
    hub.repo("acme/demo", demo_files())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        says(llama_runner("run", "acme/demo", "--port", taken.getsockname()[1], "--root", root), 8)
    assert hub.requests == []
