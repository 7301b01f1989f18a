"""What a name on the Hub is taken for, asked once, and what is refused before anything large is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.errors import LlamaRunnerError, SourceError, UsageError
from llama_runner.core.events import Drifted, Event, Noticed, Resolved, Warned
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.request.pipeline_graph import NothingToTune
from llama_runner.sources.hub.errors import NoSuchRepository, NoSuchRevision
from llama_runner.sources.hub.file_selection import NoSuchQuantization
from tests.fakehub.hub import Hub

GGUF = b"GGUF" + bytes(60)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def runner(hub: Hub, root: Path, tmp_path: Path, events: list[Event], monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return Runner(root, on_event=events.append)


def demo(**changes: bytes | None) -> dict[str, bytes | Path]:
    files: dict[str, bytes | Path] = {path.name: path for path in MODEL_DIRECTORY.iterdir() if path.is_file()}
    for name, content in changes.items():
        if content is None:
            del files[name.replace("__", ".")]
        else:
            files[name.replace("__", ".")] = content
    return files


def of(events: list[Event], kind: type[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def test_two_quantizations_are_one_too_many(hub: Hub, runner: Runner) -> None:
    hub.repo("acme/x", {"x-Q8_0.gguf": GGUF, "x-Q4_K_M.gguf": GGUF})
    with pytest.raises(UsageError, match=":Q8_0 and quantization='q4_k_m'"):
        runner.plan("acme/x:Q8_0", quantization="q4_k_m")
    assert runner.plan("acme/x:Q4_K", quantization="q4_k_m").spec.model.name == "x-Q4_K_M.gguf"


def test_a_projector_comes_along_and_is_given_to_the_server_unless_it_is_left_out(hub: Hub, runner: Runner) -> None:
    hub.repo("acme/see", {"see-Q4_K_M.gguf": GGUF, "mmproj-F16.gguf": GGUF, "mmproj-BF16.gguf": GGUF + b"x"})
    argv = runner.plan("acme/see").spec.argv()
    assert Path(argv[argv.index("--mmproj") + 1]).name == "mmproj-F16.gguf"
    steps = [(planned.step.kind, planned.action) for planned in runner.plan("acme/see").plan.steps]
    assert ("projector", "run") in steps
    assert "--mmproj" not in runner.plan("acme/see", projector=False).spec.argv()


def test_a_repository_without_any_model_says_what_it_has(hub: Hub, runner: Runner) -> None:
    hub.repo("acme/text", {"README.md": b"x", "pytorch_model.bin": b"x", "LICENSE": b"x"})
    with pytest.raises(SourceError, match=r"neither a GGUF model nor safetensors, but \*\.bin, \*\.md, LICENSE"):
        runner.plan("acme/text")


def test_wishes_that_choose_among_gguf_files_need_some(hub: Hub, runner: Runner) -> None:
    hub.repo("acme/x", demo())
    hub.repo("acme/both", {**demo(), "x-Q8_0.gguf": GGUF})
    with pytest.raises(NoSuchQuantization, match=r"x-Q8_0\.gguf"):
        runner.plan("acme/both:Q5_K_M", pattern="*")
    with pytest.raises(UsageError, match="filename and pattern choose among GGUF files, and acme/x has none"):
        runner.plan("acme/x", filename="a", pattern="b")


def test_a_size_that_is_asked_for_chooses_what_is_made_of_safetensors(hub: Hub, runner: Runner) -> None:
    hub.repo("acme/x", demo())
    weights = (MODEL_DIRECTORY / "model.safetensors").stat().st_size
    planned = runner.plan("acme/x", max_size=weights * 6 // 16)
    assert [step.step.type for step in planned.plan.steps if step.step.kind == "quantize"] == ["q5_k_m"]  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match="cannot be made to fit into 1000 B"):
        runner.plan("acme/x", max_size=1000)
    fitting = runner.plan("acme/x", fit_memory=True)
    assert [step.step.type for step in fitting.plan.steps if step.step.kind == "quantize"] == ["q8_0"]  # type: ignore[attr-defined]


def test_shards_that_the_index_names_must_be_there_before_any_is_fetched(hub: Hub, runner: Runner) -> None:
    index = json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-extra.safetensors"}}).encode()
    hub.repo("acme/x", {**demo(), "model.safetensors.index.json": index})
    with pytest.raises(LlamaRunnerError, match=r"model-extra\.safetensors"):
        runner.prepare("acme/x")
    assert not hub.bytes_sent("model.safetensors")


def test_an_index_that_names_other_weights_is_told_before_any_is_fetched(hub: Hub, runner: Runner) -> None:
    index = json.dumps({"weight_map": {"a": "model.fp32.safetensors"}}).encode()
    files = {"model.safetensors.index.json": index, "model.fp32.safetensors": b"x"}
    hub.repo("acme/x", {**demo(model__safetensors=None), **files, "model-00001-of-00001.safetensors": b"y"})
    with pytest.raises(SourceError, match=r"names model\.fp32\.safetensors"):
        runner.prepare("acme/x")
    assert not hub.bytes_sent(".safetensors")


def test_weights_that_are_not_complete_do_not_stand_in_the_way_of_a_gguf_file(hub: Hub, runner: Runner) -> None:
    shards = {f"model-0000{number}-of-00003.safetensors": b"x" for number in (1, 3)}
    hub.repo("acme/x", {"x-Q8_0.gguf": GGUF, "model.safetensors.index.json": b"{}", **shards})
    assert runner.plan("acme/x").spec.model.name == "x-Q8_0.gguf"
    with pytest.raises(LlamaRunnerError, match="model-00002-of-00003"):
        runner.plan("acme/x:Q5_K_M")


def test_who_says_how_to_quantize_gets_it_made_of_the_weights(hub: Hub, runner: Runner) -> None:
    hub.repo("acme/both", {**demo(), "x-Q4_K_M.gguf": GGUF})
    hub.repo("acme/gguf", {"x-Q4_K_M.gguf": GGUF})
    steps = {planned.step.kind for planned in runner.plan("acme/both", pure=True).plan.steps}
    assert {"download", "convert", "quantize"} <= steps
    assert "convert" not in {planned.step.kind for planned in runner.plan("acme/both").plan.steps}
    with pytest.raises(NothingToTune, match="pure=True is about quantizing, and nothing will be quantized"):
        runner.plan("acme/gguf", pure=True)
    several = runner.plan("acme/both", quantization="q5_k_m,q6_k").plan.steps
    assert [planned.step.kind for planned in several].count("quantize") == 2


def test_a_repository_without_config_is_not_complete(hub: Hub, runner: Runner) -> None:
    hub.repo("acme/x", demo(config__json=None))
    with pytest.raises(SourceError, match=r"acme/x is not complete: config\.json missing"):
        runner.plan("acme/x")


def test_what_a_tag_means_is_asked_once(hub: Hub, runner: Runner, events: list[Event]) -> None:
    repo = hub.repo("acme/x", {"x-Q8_0.gguf": GGUF})
    repo.tag("v1", repo.head)
    with pytest.raises(LlamaRunnerError):  # it is no model; what was learned of its name is kept
        runner.prepare("acme/x:Q8_0")
    with pytest.raises(LlamaRunnerError):
        runner.prepare("acme/x:v1")
    assert len(of(events, Noticed)) >= 1
    hub.reset_log()
    runner.plan("acme/x:Q8_0")
    runner.plan("acme/x:v1")
    assert hub.requests == []


def test_an_update_says_what_changed_and_nothing_else_asks(hub: Hub, runner: Runner, events: list[Event]) -> None:
    repo = hub.repo("acme/x", {"x-Q8_0.gguf": GGUF, "old.txt": b"old"})
    first = repo.head
    runner.plan("acme/x")
    with pytest.raises(LlamaRunnerError):
        runner.prepare("acme/x")
    assert [event.commit for event in of(events, Resolved)] == [first, first]  # type: ignore[attr-defined]
    events.clear()
    runner.plan("acme/x", update=True)
    (still,) = of(events, Resolved)
    assert still.unchanged  # type: ignore[attr-defined]
    repo.commit({"x-Q8_0.gguf": GGUF + b"new", "old.txt": None, "new.txt": b"new"})
    events.clear()
    forecast = runner.plan("acme/x", update=True)
    (drift,) = of(events, Drifted)
    assert drift == Drifted("acme/x", "main", first, repo.head, ("new.txt",), ("old.txt",), ("x-Q8_0.gguf",))
    assert forecast.to_json()["source"]["revision"] == repo.head
    assert runner.plan("acme/x").to_json()["source"]["revision"] == first


def test_a_damaged_memory_costs_a_request_and_a_warning(hub: Hub, runner: Runner, events: list[Event]) -> None:
    hub.repo("acme/x", {"x-Q8_0.gguf": GGUF})
    with pytest.raises(LlamaRunnerError):
        runner.prepare("acme/x")
    (file,) = (runner.root / ".llama_runner" / "pins").glob("*.json")
    file.write_text("{")
    hub.reset_log()
    events.clear()
    runner.plan("acme/x")
    assert len(hub.requests) == 1
    assert "counts as absent" in of(events, Warned)[0].text  # type: ignore[attr-defined]


def test_revisions_and_repositories_that_are_not_there(hub: Hub, runner: Runner) -> None:
    hub.repo("acme/x", {"x-Q8_0.gguf": GGUF})
    with pytest.raises(NoSuchRevision, match="v9"):
        runner.plan("acme/x@v9")
    with pytest.raises(NoSuchRepository, match="acme/y"):
        runner.plan("acme/y")
    with pytest.raises(SourceError, match="what v9 means in acme/x:v9"):
        runner.plan("acme/x:v9", offline=True)


def test_a_commit_may_be_abbreviated_and_a_quantization_may_look_like_one(hub: Hub, runner: Runner) -> None:
    repo = hub.repo("acme/x", {"x-Q8_0.gguf": GGUF})
    assert runner.plan(f"acme/x:{repo.head[:8]}").to_json()["source"]["revision"] == repo.head
    assert runner.plan(f"acme/x@{repo.head}").to_json()["source"]["revision"] == repo.head


def test_searching_from_python(hub: Hub, runner: Runner) -> None:
    hub.repo("acme/tiny-GGUF", {"tiny-Q8_0.gguf": GGUF}, downloads=5)
    (found,) = runner.search("tiny")
    assert (found.repo, found.downloads, [one.name for one in found.quantizations]) == ("acme/tiny-GGUF", 5, ["Q8_0"])
