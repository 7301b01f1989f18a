"""Generated files: what is in them for each target, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner, StoreError, UsageError
from llama_runner.config.config import Config
from llama_runner.generate.container import UID
from llama_runner.generate.errors import CannotGenerate
from llama_runner.generate.generated_files import GenerateOptions, Target
from llama_runner.generate.object_names import label, labels
from tests.conftest import Command, says
from tests.generate.checks import QUADLET, checked_compose, checked_objects
from tests.generate.conftest import CONFIG, Make


@pytest.mark.parametrize("variant", ["cpu", "cuda", "vulkan"])
@pytest.mark.parametrize("target", ["compose", "quadlet", "kubernetes", "systemd", "dockerfile"])
def test_the_same_input_gives_the_same_bytes(target: Target, variant: str, make: Make) -> None:
    options = {"variant": variant, "gpu_resource": "amd.com/gpu"}
    assert make(target, **options).files == make(target, **options).files


@pytest.mark.parametrize("variant", ["cpu", "cuda", "vulkan"])
def test_a_compose_file_has_the_published_form_and_no_rights_to_spare(variant: str, make: Make, tmp_path: Path) -> None:
    text = make("compose", variant=variant).files["compose.yaml"]
    document = checked_compose(text)
    assert list(document["services"]) == ["qwen-8b", "tls", "demo"]
    for service in document["services"].values():
        assert service["image"] == f"llama-runner:0.1.0-{variant}"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["user"] == f"{UID}:{UID}"
        assert service["deploy"]["resources"]["limits"]["memory"] == str((3 << 30) + (256 << 20))
        devices = service["deploy"]["resources"].get("reservations", {}).get("devices", [])
        assert [each["driver"] for each in devices] == (["nvidia"] if variant == "cuda" else [])
        assert ("RENDER_GID" in str(service.get("group_add"))) == (variant == "vulkan")
        assert service.get("devices", []) == (["/dev/dri:/dev/dri"] if variant == "vulkan" else [])
    assert str(tmp_path) not in text, "what is beside the configuration has relative paths"


def test_a_key_or_a_token_is_a_secret_in_a_file(make: Make) -> None:
    document = checked_compose(make("compose").files["compose.yaml"])
    service = document["services"]["qwen-8b"]
    assert document["secrets"]["qwen-8b-api-key"] == {"file": "./keys/qwen"}
    assert document["secrets"]["qwen-8b-hub-token"] == {"file": "./keys/hub"}
    assert "--api-key-file=/run/secrets/qwen-8b-api-key" in service["command"]
    assert "--token-file=/run/secrets/qwen-8b-hub-token" in service["command"]
    assert "--insecure" not in service["command"]


def test_models_without_a_port_get_the_next_free_one(make: Make) -> None:
    services = checked_compose(make("compose").files["compose.yaml"])["services"]
    published = {name: (each["ports"][0]["host_ip"], each["ports"][0]["published"]) for name, each in services.items()}
    assert published == {"qwen-8b": ("127.0.0.1", "8080"), "tls": ("0.0.0.0", "9000"), "demo": ("127.0.0.1", "8081")}


def test_kubernetes_objects_are_valid_and_restricted(make: Make) -> None:
    found = checked_objects(make("kubernetes", variant="cuda", gpus=2).files["llama-runner.yaml"])
    assert [kind for kind, name in found if "demo" in name] == ["PersistentVolumeClaim", "Deployment", "Service"]
    spec = found["Deployment", "qwen-8b"]["spec"]
    assert spec["strategy"] == {"type": "Recreate"}
    pod = spec["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [prepare], [serve] = pod["initContainers"], pod["containers"]
    for container in (prepare, serve):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert prepare["args"][:2] == ["prepare", "Qwen/Qwen3-8B-GGUF:Q4_K_M"]
    assert serve["args"][:2] == ["run", "Qwen/Qwen3-8B-GGUF:Q4_K_M"]
    assert serve["resources"]["limits"] == {"memory": "3328Mi", "nvidia.com/gpu": 2}
    assert serve["resources"]["requests"] == {"cpu": "4", "memory": "1280Mi"}
    assert serve["readinessProbe"]["httpGet"]["path"] == "/health"
    variables = {each["name"]: each.get("valueFrom") for each in serve["env"]}
    assert variables["LLAMA_API_KEY"] == {"secretKeyRef": {"name": "qwen-8b-api-key", "key": "api-key"}}
    assert variables["HF_TOKEN"] == {"secretKeyRef": {"name": "qwen-8b-hub-token", "key": "hub-token"}}
    assert "LLAMA_API_KEY" not in {each["name"] for each in prepare["env"]}
    tls = found["Deployment", "tls"]["spec"]["template"]["spec"]["containers"][0]
    assert tls["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert "--tls-key=/run/secrets/tls-tls-key" in tls["args"]
    assert "/run/secrets/tls-tls-key" in [mount["mountPath"] for mount in tls["volumeMounts"]]


def test_pods_that_fetch_from_a_remote_store_can_be_many(make: Make) -> None:
    made = make("kubernetes", "demo", remote_store="s3://models/team", max_replicas=4)
    found = checked_objects(made.files["llama-runner.yaml"])
    scaler = found["HorizontalPodAutoscaler", "demo"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1, 4)
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "llamacpp:requests_processing"
    spec = found["Deployment", "demo"]["spec"]
    assert "replicas" not in spec
    assert spec["strategy"]["type"] == "RollingUpdate"
    pod = spec["template"]["spec"]
    assert "emptyDir" in pod["volumes"][0]
    assert "--remote-store=s3://models/team" in pod["initContainers"][0]["args"]
    assert "--metrics" in pod["containers"][0]["args"], "the metric is llama-server's"
    assert pod["initContainers"][0]["envFrom"][0]["secretRef"]["optional"] is True
    with pytest.raises(CannotGenerate, match="4 replicas cannot share one volume"):
        make("kubernetes", max_replicas=4)


def test_a_key_is_referred_to_in_a_cluster_unless_the_model_says_insecure(make: Make) -> None:
    found = checked_objects(make("kubernetes").files["llama-runner.yaml"])
    names = {
        name: [each["name"] for each in found["Deployment", name]["spec"]["template"]["spec"]["containers"][0]["env"]]
        for name in ("tls", "demo")
    }
    assert names == {"tls": ["LLAMA_RUNNER_ROOT"], "demo": ["LLAMA_RUNNER_ROOT", "LLAMA_API_KEY"]}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("user", [None, "daemon"])
def test_systemd_accepts_the_units(user: str | None, make: Make, tmp_path: Path) -> None:
    made = make("systemd", user=user, program=sys.executable)
    assert sorted(made.files) == sorted(
        ["llama-runner-qwen_8b-ad63.service", "llama-runner-tls.service", "llama-runner-demo.service"]
    )
    for name, text in made.files.items():
        path = tmp_path / name
        path.write_text(text)
        mode = [] if user else ["--user"]
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *mode, path],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        )
        assert (done.returncode, done.stderr) == (0, "")
    text = made.files["llama-runner-demo.service"]
    assert ("\nUser=daemon\n" in text, "WantedBy=multi-user.target" in text) == (bool(user), bool(user))
    assert "--port=8081" in text
    assert str(tmp_path) not in text


@pytest.mark.skipif(QUADLET is None, reason="there is no quadlet")
@pytest.mark.parametrize("variant", ["cpu", "cuda", "vulkan"])
def test_podman_makes_services_of_the_quadlet_units(variant: str, make: Make, tmp_path: Path) -> None:
    assert QUADLET is not None
    made = make("quadlet", variant=variant)
    made.write(f"{tmp_path}/units/")
    done = subprocess.run(
        [QUADLET, "-user", "-dryrun"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "QUADLET_UNIT_DIRS": str(tmp_path / "units")},
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "Loading source unit" not in line], done.stderr
    for service in ("llama-runner-qwen-8b", "llama-runner-tls", "llama-runner-demo"):
        assert f"---{service}.service---" in done.stdout
    assert "--secret llama-runner-qwen-8b-api-key,type=mount,target=/run/secrets/qwen-8b-api-key" in done.stdout
    assert done.stdout.count("--read-only") == 3


@pytest.mark.skipif(QUADLET is None, reason="there is no quadlet")
def test_models_called_like_a_volume_or_a_network_have_services_of_their_own(make: Make, tmp_path: Path) -> None:
    assert QUADLET is not None
    path = tmp_path / "llama-runner.toml"
    path.write_text('[models.volume]\nsource = "o/m"\n[models.network]\nsource = "o/n"\n')
    make("quadlet", of=Config.load(path)).write(f"{tmp_path}/units/")
    environment = {**os.environ, "QUADLET_UNIT_DIRS": str(tmp_path / "units")}
    done = subprocess.run([QUADLET, "-user", "-dryrun"], check=True, capture_output=True, text=True, env=environment)
    services = re.findall(r"^---(.*)\.service---$", done.stdout, re.MULTILINE)
    assert len(services) == len(set(services)) == 4


def test_quadlet_units_are_a_container_for_each_model_a_volume_and_a_network(make: Make) -> None:
    made = make("quadlet", "demo", variant="cuda")
    assert list(made.files) == ["llama-runner-demo.container", "llama_runner.volume", "llama_runner.network"]
    text = made.files["llama-runner-demo.container"]
    for line in ("Image=localhost/llama-runner:0.1.0-cuda", "ReadOnly=true", "AddDevice=nvidia.com/gpu=all"):
        assert f"\n{line}\n" in text


@pytest.mark.parametrize("variant", ["cpu", "cuda", "vulkan"])
def test_the_dockerfile_has_no_complaint_of_hadolint(variant: str, make: Make, tmp_path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    text = make("dockerfile", variant=variant).files["Dockerfile"]
    (tmp_path / "Dockerfile").write_text(text)
    done = subprocess.run([hadolint, tmp_path / "Dockerfile"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert re.search(r"^FROM \$\{BUILD_IMAGE\}\$\{BUILD_DIGEST\} AS build$", text, re.MULTILINE)
    assert f"USER {UID}:{UID}" in text
    assert "curl" not in text
    assert ("GGML_CUDA=ON" in text, "GGML_VULKAN=ON" in text) == (variant == "cuda", variant == "vulkan")


def test_files_of_this_machine_are_mounted_and_not_in_a_cluster(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "llama-runner.toml"
    path.write_text(
        '[models.own]\nsource = "./own.gguf"\nlora = ["a.gguf"]\nllama = { chat-template-file = "t.jinja" }\n'
        '[models.split]\nsource = "./split-00001-of-00002.gguf"\n'
    )
    config = Config.load(path)
    services = checked_compose(make("compose", of=config).files["compose.yaml"])["services"]
    mounted = {each["source"]: each["target"] for each in services["own"]["volumes"] if each["type"] == "bind"}
    assert list(mounted) == ["./own.gguf", "./a.gguf", "./t.jinja"]
    assert services["own"]["command"][1] == mounted["./own.gguf"]
    assert f"--lora={mounted['./a.gguf']}" in services["own"]["command"]
    assert mounted["./t.jinja"] in services["own"]["command"]
    [split] = [each for each in services["split"]["volumes"] if each["type"] == "bind"]
    assert split["source"] == "."
    assert services["split"]["command"][1] == f"{split['target']}/split-00001-of-00002.gguf"
    with pytest.raises(CannotGenerate, match=re.escape(f"{tmp_path}/own.gguf, which is on this machine only")):
        make("kubernetes", "own", of=config)


def test_what_no_file_can_have_is_told(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "llama-runner.toml"
    path.write_text(
        '[models.chat]\nsource = "org/model"\nsystem = "Be brief."\nttl = "5m"\ndevice = "cuda"\nprofile = "fast"\n'
        "[models.chat.variants.hot]\nsampling = { temperature = 1.5 }\n"
    )
    notes = make("compose", of=Config.load(path)).notes
    assert notes == (
        "chat: system, ttl, variants are left out: only `llama-runner up` knows them",
        "chat: device are left out: the image has the programs",
        "chat: its profile is left out: it was measured on this machine",
    )


@pytest.mark.parametrize(
    ("target", "table", "options", "said"),
    [
        ("compose", 'host = "0.0.0.0"', {}, "has no API key, and whoever reaches 0.0.0.0 could use it"),
        ("compose", 'host = "/run/x.sock"', {}, "listens at a UNIX socket"),
        ("compose", 'api_key = "auto"', {}, "has an API key that is made at each start"),
        ("systemd", 'api_key = "auto"', {}, "has an API key that is made at each start"),
        ("compose", 'llama = { log-file = "x.log" }', {}, "has --log-file"),
        ("compose", "", {"memory": {"other": 1 << 30}}, "--memory names 'other'"),
        ("compose", "", {"memory": 1000}, "at least 64 MiB"),
        ("compose", "", {"variant": "metal"}, "variant"),
        ("kubernetes", "", {"variant": "vulkan"}, "no resource for every GPU with Vulkan"),
        ("kubernetes", "", {"remote_store": "/srv/store"}, "which is on this machine only"),
        ("kubernetes", "", {"remote_store": "file:///srv/store"}, "which is on this machine only"),
        ("compose", "", {"remote_store": "https://user:secret@host/x"}, "has a user name or a password"),
        ("compose", "", {"image": "x\nservices: {}"}, "image"),
        ("compose", "", {"memory": "8G"}, "memory"),
        ("systemd", "", {"user": "root x"}, "user"),
        ("quadlet", 'llama = { chat-template = ";" }', {}, "Quadlet cannot pass on"),
        ("nomad", "", {}, "target"),
    ],
)
def test_what_cannot_run_there_is_refused(
    target: Target, table: str, options: dict[str, Any], said: str, make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "llama-runner.toml"
    path.write_text(f'[models.one]\nsource = "org/model"\n{table}\n')
    with pytest.raises(UsageError) as raised:
        make(target, of=Config.load(path), **options)
    assert said in str(raised.value)


def test_two_models_with_one_port_or_one_name_there_are_refused(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "llama-runner.toml"
    path.write_text('[models.a]\nsource = "o/m"\nport = 9000\n[models.b]\nsource = "o/n"\nport = 9000\n')
    with pytest.raises(CannotGenerate, match="'a' and 'b' both have the port 9000"):
        make("compose", of=Config.load(path))
    assert make("kubernetes", of=Config.load(path)).files, "each has an address of its own in a cluster"
    with pytest.raises(CannotGenerate, match="'q:8b' and 'q-8B' are both called 'q-8b' there"):
        labels(["q:8b", "q-8B"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen:8b", "qwen-8b"),
        ("Org/Model_1.5", "org-model-1-5"),
        ("8b", "model-8b"),
        ("模型", "model-c98e118e"),
        ("--x--", "x"),
        ("x" * 90, f"{'x' * 40}-efdfd9ee"),
    ],
)
def test_names_become_labels_of_dns(name: str, expected: str) -> None:
    assert label(name) == expected
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", f"{label(name)}-hub-token")


def test_an_unknown_memory_is_an_error_that_names_the_way_out(config: Config, tmp_path: Path) -> None:
    runner = Runner(tmp_path / "root")
    with pytest.raises(CannotGenerate, match="the memory that 'demo' needs is not known here") as raised:
        runner.generate("kubernetes", "demo", config=config)
    assert raised.value.hint is not None
    assert "--memory demo=SIZE" in raised.value.hint
    options = GenerateOptions(memory={"demo": 1 << 30})
    made = runner.generate("kubernetes", "demo", config=config, options=options)
    serve = checked_objects(made.files["llama-runner.yaml"])["Deployment", "demo"]["spec"]["template"]["spec"]
    assert serve["containers"][0]["resources"]["limits"]["memory"] == "1024Mi"
    assert not (tmp_path / "root").exists(), "nothing is written"


def test_a_file_that_was_changed_is_not_overwritten_without_force(llama_runner: Command, tmp_path: Path) -> None:
    directory = tmp_path / "cwd"
    (directory / "llama-runner.toml").write_text(CONFIG)
    first = llama_runner("generate", "compose", "-o", "compose.yaml")
    assert (first.code, first.err.splitlines()[0]) == (0, "written   compose.yaml")
    assert llama_runner("generate", "compose", "-o", "compose.yaml").code == 0, "the same content is no other one"
    (directory / "compose.yaml").write_text("mine: true\n")
    says(llama_runner("generate", "compose", "-o", "compose.yaml"), 2, "exists with other content")
    assert (directory / "compose.yaml").read_text() == "mine: true\n"
    assert llama_runner("generate", "compose", "-o", "compose.yaml", "--force").code == 0
    assert llama_runner("generate", "compose").out == (directory / "compose.yaml").read_text()
    several = llama_runner("generate", "quadlet", "-o", "units")
    assert several.code == 0
    assert len(list((directory / "units").iterdir())) == 4
    says(llama_runner("generate", "quadlet", "-o", "compose.yaml"), 2, "compose.yaml is a file")


def test_a_place_that_cannot_be_written_is_told(make: Make, tmp_path: Path) -> None:
    made = make("compose", "demo")
    with pytest.raises(StoreError, match=r"cannot write to /proc/x/compose\.yaml"):
        made.write("/proc/x/")
    with pytest.raises(CannotGenerate, match="is not a file name"):
        made.write("a\0b")


def test_the_document_has_the_files_and_the_notes(llama_runner: Command, tmp_path: Path) -> None:
    (tmp_path / "cwd" / "llama-runner.toml").write_text(CONFIG)
    made = llama_runner("generate", "systemd", "--model", "demo", "--json").json
    assert list(made) == ["target", "files", "notes", "written"]
    assert list(made["files"]) == ["llama-runner-demo.service"]
    says(llama_runner("generate", "compose", "--model", "dem"), 2, "no model called 'dem'", "did you mean demo?")
    says(llama_runner("generate", "compose", "--config", ""), 2, "there is no configuration file")
    assert llama_runner("generate", "dockerfile", "--config", "").code == 0, "it needs no model"
    says(llama_runner("generate", "compose", "--memory", "much"), 2, "'much' is not a size")


def test_a_generated_file_names_no_path_of_this_machine(make: Make, tmp_path: Path) -> None:
    for target in ("compose", "kubernetes", "dockerfile"):
        for text in make(target).files.values():
            assert str(tmp_path) not in text
            assert str(Path.home()) not in text
            assert sys.prefix not in text
