"""``models list`` and ``models show``: what is there, and which model a name means."""

from __future__ import annotations

import json
import re
import shutil
import stat
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.errors import UsageError
from llama_runner.core.step import Place
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.library.model_details import capabilities
from llama_runner.system.platforms import user_id
from tests.conftest import Command, says
from tests.fakehub.hub import Hub
from tests.library.stored import COMMIT, OLD, hub_model, lay


def test_14_02_a_model_is_one_line_with_what_a_person_asks_for(root: Path, llama_runner: Command) -> None:
    assert llama_runner("prepare", MODEL_DIRECTORY, "-q", "q8_0,q4_k_m", "--root", root).code == 0
    listed = llama_runner("models", "list", "--root", root)
    assert re.search(r"^model +1b1e4f6794d8 +q4_k_m, q8_0 +3\.2 MiB +1024 +-$", listed.out, re.MULTILINE), listed
    assert len(listed.out.splitlines()) == 2, "a heading and one line"
    started = llama_runner("run", MODEL_DIRECTORY, "-q", "q8_0", "--detach", "--json", "--root", root)
    assert started.code == 0, started
    (model,) = llama_runner("models", "list", "--json", "--root", root).json
    used = {each["quantization"]: each["last_used"] for each in model["artifacts"]}
    assert used["q4_k_m"] is None
    assert used["q8_0"] == model["last_used"] is not None
    assert [server["alias"] for server in model["servers"]] == ["model:q8_0"]
    assert "model:q8_0 (process " in llama_runner("models", "list", "--root", root).out
    assert llama_runner("stop", "--all", "--root", root).code == 0
    (model,) = llama_runner("models", "list", "--json", "--root", root).json
    assert (model["servers"], model["last_used"]) == ([], used["q8_0"])


def test_14_02_all_adds_intermediates_and_what_only_a_record_is_left_of(root: Path, llama_runner: Command) -> None:
    assert llama_runner("prepare", "--demo", "--root", root).code == 0
    told = llama_runner("models", "list", "--all", "--root", root).out
    assert re.search(r"intermediate +models/gguf/local__demo__\w+/model.gguf +\(only its record is here", told), told
    (listed,) = llama_runner("models", "list", "--json", "--root", root).json
    assert [each["role"] for each in listed["artifacts"]] == ["model"]
    (listed,) = llama_runner("models", "list", "--all", "--json", "--root", root).json
    assert [each["present"] for each in listed["artifacts"]] == [False, True]


def test_14_02_the_list_is_sorted_and_filtered(tmp_path: Path, llama_runner: Command) -> None:
    hub_model(tmp_path, "org/small", "q4_k_m", content=b"1")
    hub_model(tmp_path, "org/large", "q8_0", content=b"12345")

    def names(*words: str) -> list[str]:
        return [each["name"] for each in llama_runner("models", "list", "--json", "--root", tmp_path, *words).json]

    assert names() == ["org/large", "org/small"]
    assert names("--sort", "size") == ["org/large", "org/small"]
    assert names("-q", "Q4_K_M") == names("SMALL") == ["org/small"]
    assert names("org", "nothing") == []


def test_14_02_a_name_is_what_run_takes_or_a_unique_beginning(tmp_path: Path) -> None:
    hub_model(tmp_path, "org/model-one")
    hub_model(tmp_path, "org/model-one", "q8_0")
    hub_model(tmp_path, "org/model-one", commit=OLD, made={"at": "2025-01-01T00:00:00Z"})
    hub_model(tmp_path, "other/model-two")
    models = Runner(tmp_path).models
    for name in (
        "org/model-one",
        "ORG/Model-One",
        "model-one",
        "org/",
        f"org/model-one@{COMMIT[:7]}",
        "org/model-one:Q4_K_M",
        "https://huggingface.co/org/model-one",
        "hf://org/model-one@0123456789ab",
    ):
        assert models.show(name).model.title == "org/model-one@0123456789ab", name
    assert models.show("org/model-one").others == (OLD[:12],)
    assert models.show(f"org/model-one@{OLD[:9]}").model.revision == OLD
    assert [each["path"][-11:] for each in models.show("org/model-one:q8_0").artifacts] == ["e-q8_0.gguf"]


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("org/model-on", ("no model of the store is called", "did you mean org/model-one?")),
        ("model-", ("'model-' fits org/model-one, other/model-two", "give more of the name")),
        ("org/model-one@9", ("not here at revision '9'", "there are 0123456789ab")),
        ("org/model-one:q2_k", ("not here as 'q2_k'", "there are q4_k_m")),
        ("", ("no model of the store is called ''",)),
        ("\x1b[31mred\n", (r"\x1b[31mred\n",)),
        ("../../etc", ("no model of the store",)),
        ("a" * 5000, ("no model of the store",)),
    ],
)
def test_14_02_a_name_that_means_nothing_or_several_is_refused(
    name: str, texts: tuple[str, ...], tmp_path: Path, llama_runner: Command
) -> None:
    hub_model(tmp_path, "org/model-one")
    hub_model(tmp_path, "other/model-two")
    if name == "org/model-on":
        hub_model(tmp_path, "org/model-one", "q8_0")
        name = "orgg/model-one"
    said = llama_runner("models", "show", name, "--root", tmp_path)
    says(said, 2, *texts)
    assert "\x1b" not in said.err


def test_14_03_show_tells_how_each_file_was_made(root: Path, llama_runner: Command) -> None:
    assert llama_runner("prepare", "--demo", "--root", root).code == 0
    told = llama_runner("models", "show", "demo", "--root", root)
    assert told.code == 0, told
    assert "llama, 1,967,872 parameters" in told.out
    assert re.search(r"quantized to q4_k_m from model\.gguf, by cpu-b\d+-\w{8}, on 20\d\d-", told.out), told
    assert "converted to auto from " in told.out
    found = llama_runner("models", "show", "demo:q4_k_m", "--json", "--root", root).json
    (artifact,) = found["artifacts"]
    assert artifact["digest"].startswith("sha256:")
    assert (found["license"], found["capabilities"], found["drift"]) == ("mit", ["chat"], None)


@pytest.mark.parametrize("seconds", ["-Infinity", "1e400", "NaN", "true", "-1"])
def test_14_03_an_edited_duration_that_is_none_is_left_out_and_json_stays_json(
    tmp_path: Path, llama_runner: Command, seconds: str
) -> None:
    hub_model(tmp_path, "acme/tiny", made={"at": "2026-01-01T00:00:00Z", "seconds": 12345})
    (state,) = tmp_path.glob(f"models/gguf/*/{STATE_FILE}")
    state.write_text(state.read_text().replace("12345", seconds))

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    said = llama_runner("models", "show", "acme/tiny", "--json", "--root", tmp_path)
    assert json.loads(said.out, parse_constant=refuse)["artifacts"][0]["seconds"] is None
    assert "inf" not in llama_runner("models", "show", "acme/tiny", "--root", tmp_path).out


def test_14_03_measured_memory_and_quality_are_told(tmp_path: Path) -> None:
    path = hub_model(tmp_path, "org/model")
    digest = Runner(tmp_path).models.show("org/model").artifacts[0]["digest"]
    place = Place(f"models/gguf/{path.parent.name}", "model.quality-0.json")
    lay(tmp_path, place, b"{}", step="quality", inputs={"model": digest}, facts={"perplexity": "9.5"})
    memory = tmp_path / ".llama_runner" / "memory"
    memory.mkdir()
    (memory / "a.json").write_text(json.dumps({"resident": 77, "model": str(path)}))
    (memory / "b.json").write_text("{")
    first = Runner(tmp_path).models.show("org/model").artifacts[0]
    assert (first["memory"], first["quality"]) == (77, {"perplexity": "9.5"})


def test_14_03_what_a_model_can_do_follows_from_its_template() -> None:
    template = "{% if tools %}{{ tools }}{% endif %}{% if enable_thinking %}<think>{% endif %}"
    assert capabilities(template, vision=True) == ["chat", "tools", "thinking", "vision"]
    assert capabilities("{{ messages }}", vision=False) == ["chat"]
    assert capabilities(None, vision=False) == []


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_03_check_tells_what_changed_on_the_hub(hub: Hub, tmp_path: Path, llama_runner: Command) -> None:
    now = hub.repo("org/model", {"a.gguf": b"a"}).head
    hub_model(tmp_path, "org/model", commit=COMMIT)
    drift = llama_runner("models", "show", "org/model", "--check", "--json", "--root", tmp_path).json["drift"]
    assert drift == {"branch": "main", "here": COMMIT, "now": now, "files": None}
    hub_model(tmp_path, "org/same", commit=hub.repo("org/same", {"a.gguf": b"a"}).head)
    assert "main is still" in llama_runner("models", "show", "org/same", "--check", "--root", tmp_path).out
    says(llama_runner("models", "show", "org/model", "--check", "--root", tmp_path, env={"HF_HUB_OFFLINE": "1"}), 3)


def test_14_02_foreign_names_are_printed_as_escapes_and_bad_records_named(
    tmp_path: Path, llama_runner: Command
) -> None:
    path = hub_model(tmp_path, "org/model", source={"kind": "hf", "ref": "org/\x1b[2Jmodel\n", "revision": COMMIT})
    state = hub_model(tmp_path, "org/newer").with_name(STATE_FILE)
    state.write_text('{"schema": 2, "artifacts": {"x.gguf": {}}}')
    listed = llama_runner("models", "list", "--root", tmp_path)
    assert (listed.code, "\x1b" in listed.out, len(listed.out.splitlines())) == (0, False, 2)
    assert "schema 2, this program reads 1" in listed.err
    assert path.exists()


@pytest.mark.skipif(not user_id(), reason="root may read everything")
def test_14_02_a_directory_without_permission_is_left_out(tmp_path: Path, llama_runner: Command) -> None:
    path = hub_model(tmp_path, "org/model")
    path.parent.chmod(0)
    assert llama_runner("models", "list", "--json", "--root", tmp_path).json == []
    path.parent.chmod(stat.S_IRWXU)


def test_14_02_a_store_that_cannot_be_written_is_listed(tmp_path: Path, llama_runner: Command) -> None:
    hub_model(tmp_path, "org/model")
    before = sorted(tmp_path.rglob("*"))
    assert llama_runner("models", "list", "--root", tmp_path).code == 0
    assert llama_runner("models", "show", "org/model", "--root", tmp_path).code == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_14_02_an_unknown_user_of_a_name_is_no_crash() -> None:
    with pytest.raises(UsageError, match="no model of the store"):
        Runner("/nonexistent").models.show("~nobody-here/x")


def test_14_02_models_of_one_name_are_told_apart_by_their_paths(
    root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    paths = []
    for parent, epsilon in (("a", 1e-5), ("b", 2e-5)):
        model = Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / parent / "checkpoint-500"))
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": epsilon}))
        Runner(root).prepare(model)
        paths.append(str(model))
    shown = llama_runner("models", "list", "--root", root).out.splitlines()
    assert [line.split()[0] for line in shown[1:]] == paths
    refused = llama_runner("models", "show", "checkpoint-500", "--root", root)
    says(refused, 2, f"'checkpoint-500' fits {paths[0]}, {paths[1]}\nhint: name one by its path\n")
    assert llama_runner("models", "show", paths[1], "--root", root, "--json").json["source"] == paths[1]
