"""``check`` finds what a file does otherwise than its original, and says which part it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.convert import convert
from llama_runner.core.events import Noticed, StepStarted
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.fidelity.compare_tokens_and_template import DRIVER
from llama_runner.fidelity.difficult_lines import lines_for
from llama_runner.fidelity.original_tokenizer import read_original
from tests.conftest import Command, says
from tests.convert.checkpoints import edit_json
from tests.convert.official import cases_of
from tests.fakehub.hub import Hub

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check conversions, as is the default for users."""
    monkeypatch.delenv("LLAMA_RUNNER_NO_CHECK")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a copy of the demo model."""
    return Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / "model"))


def changed(directory: Path, file: str, change: Callable[[Any], None]) -> None:
    """Change a JSON file of a model."""
    document = json.loads((directory / file).read_text(encoding="utf-8"))
    change(document)
    (directory / file).write_text(json.dumps(document), encoding="utf-8")


def parts(document: dict[str, Any], cause: str = "file") -> list[str]:
    return [finding["part"] for finding in document["findings"] if finding["cause"] == cause]


def test_there_are_about_300_lines_and_some_of_the_model_s_own_tokens() -> None:
    original = read_original(MODEL_DIRECTORY)
    assert original is not None
    lines = lines_for(original)
    assert len(lines) > 300
    assert len({line.text for line in lines}) == len(lines)
    assert any(line.kind == "added tokens" and "<|eot_id|>" in line.text for line in lines)


def test_the_demo_model_is_like_its_original(root: Path, llama_runner: Command) -> None:
    found = llama_runner("check", "--demo", "--root", root, "--json")
    assert found.code == 0, found
    assert found.json["tokens"]["identical"] == found.json["tokens"]["lines"] > 300
    assert found.json["template"]["identical"] == found.json["template"]["conversations"] == 6
    assert found.json["special"] == {"bos": 0, "eos": 4, "eot": 4, "ends": [1, 4]}
    assert (found.json["findings"], found.json["failed"], found.json["recorded"]) == ([], False, False)
    again = llama_runner("check", "--demo", "--root", root, "--json", "--strict")
    assert (again.code, again.json["recorded"]) == (0, True)
    forced = llama_runner("check", "--demo", "--root", root, "--json", "--force-step", "check")
    assert (forced.code, forced.json["recorded"]) == (0, False)


def wrong_merges(directory: Path) -> None:
    changed(directory, "tokenizer.json", lambda found: found["model"]["merges"].reverse())


def wrong_tokens(directory: Path) -> None:
    def swap(found: dict[str, Any]) -> None:
        vocabulary = found["model"]["vocab"]
        vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]

    changed(directory, "tokenizer.json", swap)


def wrong_bos(directory: Path) -> None:
    edit_json(directory / "tokenizer_config.json", bos_token="<|start_header_id|>")
    changed(directory, "tokenizer.json", lambda found: found.update(post_processor=None))


def wrong_eos(directory: Path) -> None:
    edit_json(directory / "tokenizer_config.json", eos_token="<|end_header_id|>")


def wrong_template(directory: Path) -> None:
    edit_json(directory / "tokenizer_config.json", chat_template="{% for m in messages %}{{ m.content }}{% endfor %}")


def no_template(directory: Path) -> None:
    changed(directory, "tokenizer_config.json", lambda found: found.pop("chat_template"))


@pytest.mark.parametrize(
    ("break_it", "part"),
    [
        (wrong_merges, "merges"),
        (wrong_tokens, "tokens"),
        (wrong_bos, "BOS"),
        (wrong_eos, "EOS"),
        (wrong_template, "template"),
        (no_template, "template"),
    ],
)
def test_a_broken_file_is_an_error_that_names_the_part(
    break_it: Callable[[Path], None], part: str, root: Path, model: Path, tmp_path: Path, llama_runner: Command
) -> None:
    break_it(model)
    broken = tmp_path / "broken.gguf"
    convert(model, broken, name="model", outtype="f16")
    found = llama_runner("check", broken, "--original", MODEL_DIRECTORY, "--root", root, "--json")
    says(found, 6, "is not like its original", part)
    document = json.loads(found.out.splitlines()[0])
    assert document["failed"]
    assert part in parts(document), document["findings"]


def test_a_wrong_pre_tokenizer_stops_a_start_until_it_is_left_unchecked(
    root: Path, model: Path, llama_runner: Command
) -> None:
    words = ("prepare", model, "--pre-tokenizer", "deepseek-llm", "--root", root, "--json")
    says(llama_runner(*words), 6, "pre-tokenizer deepseek-llm", "--no-check")
    again = llama_runner(*words)
    says(again, 6, "pre-tokenizer deepseek-llm")
    assert "quantize" not in again.err, "it was made once"
    left_out = llama_runner(*words, "--no-check")
    assert (left_out.code, left_out.json["ran"], left_out.json["check"]) == (0, [], {})
    assert llama_runner(*words, env={"LLAMA_RUNNER_NO_CHECK": "1"}).code == 0


def test_a_template_that_llama_cpp_cannot_read_is_its_difference(
    root: Path, model: Path, llama_runner: Command
) -> None:
    edit_json(model / "tokenizer_config.json", chat_template="{% for m in messages %}{{ m.content }")
    found = llama_runner("check", model, "--root", root, "--json")
    assert found.code == 0, found
    assert parts(found.json, "llama.cpp") == ["template"]
    assert found.json["tokens"]["identical"] == found.json["tokens"]["lines"]
    says(llama_runner("check", model, "--root", root, "--strict"), 6, "template: llama.cpp cannot read it")


def test_a_conversion_is_followed_by_a_check_and_everything_shows_it(root: Path, llama_runner: Command) -> None:
    events: list[object] = []
    runner = Runner(root, on_event=events.append)
    summary = "324 of 324 lines have the same tokens, 6 of 6 conversations the same prompt"
    assert runner.prepare(demo=True).check["summary"] == summary
    assert [each.step for each in events if isinstance(each, StepStarted)] == ["convert", "quantize", "check"]
    assert ("check", summary) in [(each.what, each.text) for each in events if isinstance(each, Noticed)]
    plan = runner.plan(demo=True)
    assert {each.step.kind: each.action for each in plan.plan.steps}["check"] == "skip"
    assert (plan.plan.pending, plan.check["summary"]) == ((), summary)
    prepared = runner.prepare(demo=True)
    assert (prepared.ran, prepared.check["summary"]) == ((), summary)
    for words in (("plan", "--demo"), ("prepare", "--demo"), ("models", "show", "demo")):
        assert summary in llama_runner(*words, "--root", root).out, words
    shown = llama_runner("models", "show", "demo", "--root", root, "--json").json
    assert [each["check"]["summary"] for each in shown["artifacts"] if each["check"]] == [summary]


def test_a_store_of_a_version_without_checks_starts_nothing(root: Path, llama_runner: Command) -> None:
    assert llama_runner("prepare", "--demo", "--no-check", "--root", root).code == 0
    (state,) = root.glob("models/gguf/*/.state.json")
    content = json.loads(state.read_text())
    del content["artifacts"]["model.gguf"]["facts"]["check"]
    state.write_text(json.dumps(content))
    plan = Runner(root).plan(demo=True)
    assert (plan.plan.pending, plan.check) == ((), {})
    assert "check" not in [each.step.kind for each in plan.plan.steps]
    assert Runner(root).prepare(demo=True).ran == ()
    assert llama_runner("check", "--demo", "--root", root, env={"HF_HUB_OFFLINE": "1"}).code == 0


def test_a_check_that_was_interrupted_is_made_by_the_next_start(root: Path) -> None:
    Runner(root).prepare(demo=True, check=False)
    assert Runner(root).prepare(demo=True).ran == ("check",)
    assert Runner(root).prepare(demo=True).ran == ()


def test_a_check_makes_no_other_step_run(root: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    made = Runner(bare).make(demo=True, quantization="auto", keep_f16=True)
    assert made[0].ran, "the programs are not here, so nothing is compiled for the check"
    (bare / "bins").symlink_to(root / "bins")
    assert Runner(bare).prepare(demo=True, quantization="auto").ran == ("check",)


def test_without_the_libraries_one_line_says_that_nothing_is_checked(
    root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['tokenizers'] = None\n")
    without = {"PYTHONPATH": str(hidden)}
    first = llama_runner("prepare", "--demo", "--root", root, env=without)
    assert first.code == 0
    assert [line for line in first.err.splitlines() if "tokenizers" in line] == [
        "note      not checked: the Python packages tokenizers and jinja2 are not installed (llama-runner[check])"
    ]
    again = llama_runner("prepare", "--demo", "--root", root, env=without)
    assert (again.code, again.err) == (0, "")
    says(llama_runner("check", "--demo", "--root", root, env=without), 5, "tokenizers", "llama-runner[check]")


def test_an_answer_that_is_too_large_hinders_no_start(root: Path, model: Path, llama_runner: Command) -> None:
    edit_json(model / "tokenizer_config.json", chat_template="{{ 'a' * 45000000 }}")
    found = llama_runner("prepare", model, "--root", root)
    assert found.code == 0, found
    assert "not checked: " in found.err


def test_a_template_that_asks_for_too_much_memory_is_refused(tmp_path: Path) -> None:
    """The driver limits itself before it reads anything; here to less than users have."""
    job: dict[str, Any] = {
        "tokenizer": None,
        "template": "{{ 'a' * 2 ** 30 }}",
        "conversations": {"one": {}},
        "specials": {},
    }
    (tmp_path / "job").write_text(json.dumps(job))
    code = "import sys, original_driver as driver; driver.MEMORY = 1 << 29; driver.main(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, tmp_path / "job", tmp_path / "result"], check=True, cwd=DRIVER.parent)
    result = json.loads((tmp_path / "result").read_text())
    assert (result["prompts"], "MemoryError" in result["refused"]["one"]) == ({}, True)


def test_an_unreadable_original_is_said_and_hinders_no_start(root: Path, model: Path, llama_runner: Command) -> None:
    made = Runner(root).prepare(model, check=False).model
    changed(model, "tokenizer.json", lambda found: found.update(normalizer={"type": "NoSuchThing"}))
    found = llama_runner("check", made, "--original", model, "--root", root)
    assert found.code == 0, found
    assert "warning   tokens: not compared: the original's tokenizer cannot be read" in found.out
    says(llama_runner("check", made, "--original", model, "--root", root, "--strict"), 6, "not compared")
    changed(model, "tokenizer_config.json", lambda found: found.pop("chat_template"))
    says(llama_runner("check", made, "--original", model, "--root", root), 6, "was not checked: the original's")


@pytest.mark.usefixtures("user_of_the_hub")
def test_a_gguf_on_the_hub_is_compared_with_its_base_model_without_weights(
    hub: Hub, root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    weights = tmp_path / "model-Q8_0.gguf"
    made = Runner(root).make(demo=True, quantization="q8_0", check=False)[0].path
    weights.write_bytes(made.read_bytes())
    card = "---\nbase_model:\n- acme/tuned\n---\n# A model\n"
    hub.repo("quants/tuned-GGUF", {"model-Q8_0.gguf": weights, "README.md": card.encode()})
    hub.repo("acme/tuned", {"README.md": b"---\nbase_model: acme/base\n---\n", "model.bin": b"x" * 100})
    hub.repo("acme/base", {path.name: path for path in MODEL_DIRECTORY.iterdir()})
    found = llama_runner("check", "quants/tuned-GGUF", "--root", root, "--json")
    assert found.code == 0, found
    assert found.json["original"].startswith("acme/base at ")
    assert found.json["tokens"]["identical"] == found.json["tokens"]["lines"] > 300
    names = [each.path for each in hub.requests]
    assert not [name for name in names if name.endswith("model.safetensors")]
    assert sum(each.bytes_sent for each in hub.requests if "GGUF" in each.path) < 3 << 19 < weights.stat().st_size
    count = len(hub.requests)
    offline = llama_runner("check", "quants/tuned-GGUF", "--root", root, "--json", env={"HF_HUB_OFFLINE": "1"})
    assert (offline.code, offline.json["recorded"]) == (0, True), offline
    assert len(hub.requests) == count


@pytest.mark.usefixtures("user_of_the_hub")
def test_originals_whose_names_are_alike_are_not_taken_for_each_other(
    hub: Hub, root: Path, llama_runner: Command
) -> None:
    made = Runner(root).make(demo=True, quantization="q8_0", check=False)[0].path
    for repo in ("a/b__c", "a__b/c"):
        hub.repo(repo, {path.name: path for path in MODEL_DIRECTORY.iterdir()} | {"README.md": repo.encode()})
        found = llama_runner("check", made, "--original", repo, "--root", root, "--json")
        assert found.code == 0, found
        assert f"{repo} at " in found.err, "it was fetched"
        assert found.json["original"].startswith(f"{repo} at ")
        count = len(hub.requests)
        assert llama_runner("check", made, "--original", repo, "--root", root, "--json").code == 0
        assert len(hub.requests) == count


@pytest.mark.usefixtures("user_of_the_hub")
def test_a_gguf_whose_original_is_not_known_needs_one(hub: Hub, root: Path, llama_runner: Command) -> None:
    made = Runner(root).make(demo=True, quantization="q8_0", check=False)[0].path
    hub.repo("quants/lost-GGUF", {"model-Q8_0.gguf": made})
    says(llama_runner("check", "quants/lost-GGUF", "--root", root), 2, "not known", "--original")
    says(llama_runner("check", made, "--root", root), 2, "not known", "--original")
    says(llama_runner("check", "--demo", "--original", MODEL_DIRECTORY, "--root", root), 2, "leave --original out")
    says(llama_runner("check", made, "--original", "./nowhere", "--root", root), 3, "does not exist")


def test_values_of_others_are_printed_without_control_characters(
    root: Path, model: Path, llama_runner: Command
) -> None:
    made = Runner(root).prepare(model, check=False, quantization="f16").model
    escape = "\x1b[31mred"
    edit_json(model / "tokenizer_config.json", chat_template="{{ raise_exception('" + escape + "') }}" + escape)

    found = llama_runner("check", made, "--original", model, "--root", root)
    assert found.code == 6
    assert "\x1b" not in found.out + found.err


def test_check_leaves_no_server_and_no_file_behind(root: Path, llama_runner: Command) -> None:
    Runner(root).prepare(demo=True)
    assert not list((root / ".llama_runner" / "staging").iterdir())
    assert llama_runner("ps", "--root", root, "--json").json == []


@pytest.mark.usefixtures("user_of_the_hub")
def test_a_converted_model_of_the_hub_is_checked_and_its_freed_original_is_not_fetched_for_that(
    hub: Hub, root: Path
) -> None:
    hub.repo("acme/base", {path.name: path for path in MODEL_DIRECTORY.iterdir()})
    runner = Runner(root)
    assert "check" in runner.prepare("acme/base", quantization="q8_0").ran
    assert "check" not in runner.prepare("acme/base", quantization="q4_k_m", check=False).ran
    plan = runner.plan("acme/base", quantization="q4_k_m").plan
    assert [each.step.kind for each in plan.pending] == ["check"]
    (original,) = (root / "models" / "safetensors").iterdir()
    shutil.rmtree(original)
    plan = runner.plan("acme/base", quantization="q4_k_m").plan
    assert (plan.pending, "check" in [each.step.kind for each in plan.steps]) == ((), False)
    assert runner.prepare("acme/base", quantization="q4_k_m").ran == ()
    assert runner.prepare("acme/base", quantization="q8_0").check["identical"] > 300, "what was found stays"


def test_a_tokenizer_with_code_of_its_own_is_compared_by_its_sentencepiece_model(
    root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    """InternLM2 has no tokenizer.json; its class is in a file of the model, which is not run."""
    pytest.importorskip("sentencepiece")
    directory = tmp_path / "internlm2-chat"
    cases_of("relatives")["internlm2-chat"].build(directory)
    edit_json(
        directory / "tokenizer_config.json",
        tokenizer_class="InternLM2Tokenizer",
        auto_map={"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        bos_token="<s>",
        added_tokens_decoder={"322": {"content": "<|im_end|>", "special": True}},
    )
    (directory / "generation_config.json").write_text('{"eos_token_id": [2, 322]}', encoding="utf-8")
    done = llama_runner("check", directory, "--root", root, "--json")
    assert (done.code, parts(done.json)) == (0, []), done
    assert "sentencepiece" in json.dumps(done.json)
