"""``models provenance``: how a model file was made, in the published forms, with nothing of the machine in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llama_runner import Runner, UsageError
from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import Command, says
from tests.fakehub.hub import Hub
from tests.fakehub.models import write_gguf
from tests.library.stored import COMMIT, OLD, hub_model
from tests.shared_root import link_builds

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "provenance" / "statement.schema.json").read_text())


def check_statement(document: Any) -> None:
    """Compare a statement with the definitions of in-toto and SLSA."""
    jsonschema.Draft202012Validator(SCHEMA).validate(document)


def check_bom(document: Any) -> None:
    """Compare a document with the schema of CycloneDX 1.6, which the library carries."""
    from cyclonedx.schema import SchemaVersion  # takes a second
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None


def steps_of(statement: dict[str, Any]) -> list[dict[str, Any]]:
    return list(statement["predicate"]["buildDefinition"]["internalParameters"]["steps"])


def materials_of(statement: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}


def test_14_08_a_statement_has_subject_materials_recipe_tools_and_times(root: Path, llama_runner: Command) -> None:
    made = llama_runner("prepare", "--demo", "--json", "--root", root).json
    statement = llama_runner("models", "provenance", "demo", "--root", root).json
    check_statement(statement)
    assert statement["subject"] == [{"name": "model.q4_k_m.gguf", "digest": {"sha256": made["sha256"]}}]
    assert [each["step"] for each in steps_of(statement)] == ["convert", "quantize"]
    definition, run = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    assert definition["buildType"] == "urn:llama-runner:step:quantize:v1"
    assert definition["externalParameters"]["params"] == {"type": "q4_k_m"}
    materials = materials_of(statement)
    assert {"config.json", "model.safetensors", "tokenizer.json", "model.gguf"} <= materials.keys()
    assert materials["model.gguf"]["annotations"] == {"role": "intermediate"}
    assert [name for name, each in materials.items() if each["annotations"]["role"] == "tool"] == [
        path.name for path in (root / "bins").glob("*/cpu-*")
    ]
    assert run["builder"]["id"].startswith("pkg:pypi/llama-runner@")
    assert run["metadata"]["startedOn"] <= run["metadata"]["finishedOn"]


def test_14_08_an_ml_bom_has_hashes_licence_pedigree_and_a_model_card(root: Path, llama_runner: Command) -> None:
    made = llama_runner("prepare", "--demo", "--json", "--root", root).json
    bom = llama_runner("models", "provenance", "demo", "--format", "cyclonedx", "--root", root).json
    check_bom(bom)
    component = bom["metadata"]["component"]
    assert (component["type"], component["name"]) == ("machine-learning-model", "demo")
    assert component["hashes"] == [{"alg": "SHA-256", "content": made["sha256"]}]
    assert component["licenses"] == [{"license": {"id": "MIT"}}]
    assert [each["name"] for each in component["pedigree"]["ancestors"]] == ["model.gguf"]
    assert component["modelCard"]["modelParameters"]["task"] == "text-generation"
    assert component["modelCard"]["modelParameters"]["architectureFamily"] == "llama"
    assert {each["name"] for each in bom["components"]} >= {"config.json", "model.safetensors"}
    assert [each["name"].split()[0] for each in bom["metadata"]["tools"]["components"]] == ["llama-runner", "llama.cpp"]


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_08_a_model_of_the_hub_names_repository_commit_and_files(hub: Hub, root: Path, tmp_path: Path) -> None:
    repo = hub.repo("acme/demo-GGUF", {"demo-Q8_0.gguf": write_gguf(tmp_path / "a.gguf", 20_000)})
    made = Runner(root).prepare("acme/demo-GGUF")
    statement = Runner(root).models.provenance("acme/demo-GGUF")
    check_statement(statement)
    assert statement["subject"][0]["digest"] == {"sha256": made.sha256}
    repository, file = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    uri = f"pkg:huggingface/acme/demo-GGUF@{repo.head}"
    assert repository == {"name": "acme/demo-GGUF", "uri": uri, "digest": {"gitCommit": repo.head}}
    assert (file["uri"], file["digest"]) == (f"{uri}#demo-Q8_0.gguf", {"sha256": made.sha256})
    bom = Runner(root).models.provenance("acme/demo-GGUF", form="cyclonedx")
    check_bom(bom)
    assert bom["metadata"]["component"]["group"] == "acme"
    assert bom["metadata"]["component"]["purl"] == f"{uri}#demo-Q8_0.gguf"
    assert hub.url not in json.dumps([statement, bom])


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_08_safetensors_of_the_hub_lead_back_to_their_commit(hub: Hub, root: Path) -> None:
    repo = hub.repo("acme/demo", {path.name: path for path in MODEL_DIRECTORY.iterdir() if path.is_file()})
    Runner(root).prepare("acme/demo")
    statement = Runner(root).models.provenance("acme/demo")
    check_statement(statement)
    assert [each["step"] for each in steps_of(statement)] == ["download", "convert", "quantize"]
    assert materials_of(statement)["acme/demo"]["digest"] == {"gitCommit": repo.head}
    check_bom(Runner(root).models.provenance("acme/demo", form="cyclonedx"))


def test_14_08_nothing_of_this_machine_is_in_it(tmp_path: Path, binaries: Path, llama_runner: Command) -> None:
    root, model = tmp_path / 'eve\'s "röot" =;x\t', tmp_path / "home of eve" / "my-model"
    link_builds(binaries, root)
    shutil.copytree(MODEL_DIRECTORY, model)
    environment = {"USER": "eve", "LOGNAME": "eve", "HOME": str(model.parent)}
    assert llama_runner("prepare", model, "--root", root, env=environment).code == 0
    for form in ("in-toto", "cyclonedx"):
        said = llama_runner("models", "provenance", "my-model", "--format", form, "--root", root, env=environment)
        assert said.code == 0, said
        for foreign in ("eve", "öot", "\\u00f6ot", str(tmp_path), str(binaries), os.uname().nodename, str(Path.home())):
            assert foreign not in said.out, foreign


def test_14_08_the_same_records_give_the_same_bytes(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    assert llama_runner("prepare", "--demo", "--root", root).code == 0
    other = tmp_path / "moved"
    shutil.copytree(root, other, symlinks=True)
    for form in ("in-toto", "cyclonedx"):
        words = ("models", "provenance", "demo", "--format", form, "--root")
        texts = {
            llama_runner(*words, each, env={"PYTHONHASHSEED": seed}).out for each in (root, other) for seed in "123"
        }
        assert len(texts) == 1


def test_14_08_without_the_library_only_the_ml_bom_is_refused(root: Path) -> None:
    assert Runner(root).prepare(demo=True).model.exists()
    code = (
        "import sys; sys.modules['cyclonedx'] = None\n"
        "from llama_runner.cli.main import main\n"
        f"sys.exit(main(['models', 'provenance', 'demo', '--root', {str(root)!r}, *sys.argv[1:]]))"
    )
    done = [
        subprocess.run([sys.executable, "-c", code, *words], check=False, capture_output=True, text=True)
        for words in ((), ("--format", "cyclonedx"))
    ]
    assert [each.returncode for each in done] == [0, 5]
    assert "pip install 'llama-runner[sbom]'" in done[1].stderr


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("org/model", ("'org/model' fits org/model:model-q4_k_m.gguf, org/model:model-q8_0.gguf",)),
        ("org/modle", ("no model of the store is called", "did you mean org/model?")),
        ("org/model:q2_k", ("not here as 'q2_k'",)),
        ("\x1b[2J", (r"\x1b[2J",)),
    ],
)
def test_14_08_a_name_means_one_file(name: str, texts: tuple[str, ...], tmp_path: Path, llama_runner: Command) -> None:
    for quantization in ("q4_k_m", "q8_0"):
        hub_model(tmp_path, "org/model", quantization)
    hub_model(tmp_path, "org/model", commit=OLD, made={"at": "2025-01-01T00:00:00Z"})
    says(llama_runner("models", "provenance", name, "--root", tmp_path), 2, *texts)
    statement = Runner(tmp_path).models.provenance("org/model:model-q8_0.gguf")
    assert statement["subject"][0]["name"] == "model-q8_0.gguf"
    old = Runner(tmp_path).models.provenance(f"org/model@{OLD[:6]}")
    assert materials_of(old)["org/model"]["digest"] == {"gitCommit": OLD}
    with pytest.raises(UsageError, match="form: expected 'in-toto' or 'cyclonedx', got 'spdx'"):
        Runner(tmp_path).models.provenance("org/model:q8_0", form="spdx")


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["made"].update(at="yesterday", seconds="long", by="/home/eve/x"),
        lambda record: record["made"].update(at="9999-99-99T99:99:99Z", seconds=-1, by=None),
        lambda record: record["made"].update(at="0001-01-01T00:00:00Z", seconds=1e8),
        lambda record: record["made"].update(seconds=float("nan")),
        lambda record: record["noted"].update(tool={"digest": "/home/eve"}, other=7, c={"path": "/home/eve"}),
        lambda record: record["recipe"]["inputs"].update(model="/home/eve", loop=record["output"]["digest"], x=None),
        lambda record: record["recipe"]["params"].update(
            {"a": float("inf"), "/home/eve": ["/home/eve"], "\x1b": "\ud800"}
        ),
        lambda record: record["recipe"].update(step="../\n", version={"a": 1}),
        lambda record: record["recipe"].update(step="/home/eve/x"),
        lambda record: record["source"].update(kind="safetensors", ref="/home/eve/m", revision=None),
        lambda record: record["source"].update(kind="hf", ref="a b/\x1b<>", revision="/home/eve"),
        lambda record: record["source"].update(files={"/home/eve": {"digest": "sha256:zz"}}),
        lambda record: record["facts"].update(files={"/home/eve": 7}, context_length=10**400, quantization=["x"]),
    ],
)
def test_14_08_edited_records_give_valid_documents(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    state = hub_model(tmp_path, "org/model", commit=COMMIT).with_name(STATE_FILE)
    whole = json.loads(state.read_text())
    (record,) = whole["artifacts"].values()
    change(record)
    state.write_text(json.dumps(whole))
    (found,) = Runner(tmp_path).models.list()
    statement = Runner(tmp_path).models.provenance(found.name)
    check_statement(statement)
    bom = Runner(tmp_path).models.provenance(found.name, form="cyclonedx")
    check_bom(bom)
    assert "eve" not in json.dumps([statement, bom], allow_nan=False)
