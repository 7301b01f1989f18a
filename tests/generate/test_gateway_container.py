"""Several models are one container by default: the gateway, with the configuration file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llama_runner.config.config import Config
from llama_runner.generate.errors import CannotGenerate
from llama_runner.generate.generated_files import Generated, GenerateOptions, Target, generate
from tests.generate.checks import QUADLET, checked_compose, checked_objects

CONFIG = """
[gateway]
listen = ["127.0.0.1:11434"]
api_key_file = "keys/gateway"

[models.chat]
source = "org/model"
system = "Be brief."

[models.chat.variants.hot]
sampling = { temperature = 1.5 }

[models.chat.adapters.legal]
path = "adapters/legal.gguf"

[models.own]
source = "./own.gguf"
token_file = "/etc/hub token"
"""
HUB_ONLY = '[models.a]\nsource = "o/a"\n[models.b]\nsource = "o/b"\npreload = true\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llama-runner.toml"


def made(target: Target, path: Path, text: str, *names: str, **options: Any) -> Generated:
    """Return files for a configuration whose models take 1 GiB each."""
    path.write_text(text)
    return generate(target, Config.load(path), names, GenerateOptions(**options), lambda _: (1 << 30, 1 << 30))


def test_compose_serves_several_models_with_one_service(path: Path) -> None:
    document = checked_compose(made("compose", path, CONFIG).files["compose.yaml"])
    [(name, service)] = document["services"].items()
    assert name == "llama-gateway"
    assert service["command"] == ["up", "--config=/etc/llama-gateway/llama-runner.toml"]
    assert service["ports"][0]["published"] == "11434"
    mounted = {each["source"]: each["target"] for each in service["volumes"] if each["type"] == "bind"}
    assert mounted == {
        "./adapters/legal.gguf": "/etc/llama-runner/adapters/legal.gguf",
        "./own.gguf": "/etc/llama-runner/own.gguf",
        "./llama-runner.toml": "/etc/llama-runner/llama-runner.toml",
    }
    secrets = {document["secrets"][each["source"]]["file"]: each["target"] for each in service["secrets"]}
    assert secrets == {"./keys/gateway": "/run/secrets/llama-gateway-api-key", "/etc/hub token": "/etc/hub token"}
    assert service["deploy"]["resources"]["limits"]["memory"] == str(2 * ((1 << 30) + (256 << 20)) + (4 << 30))


def test_the_configuration_in_the_container_is_that_of_the_user(path: Path, tmp_path: Path) -> None:
    document = checked_compose(made("compose", path, CONFIG).files["compose.yaml"])
    [content] = [each["content"] for each in document["configs"].values()]
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "llama-runner.toml").write_text(CONFIG)
    (inside / "other.toml").write_text(content.replace("/etc/llama-runner/", f"{inside}/"))
    config = Config.load(inside / "other.toml")
    assert list(config.models) == ["chat", "own"]
    assert config.resolved("own").source == str(inside / "own.gguf")
    assert config.gateway.listen == ("0.0.0.0:8080",)
    assert str(config.gateway.api_key_file) == "/run/secrets/llama-gateway-api-key"
    assert not config.gateway.insecure


def test_kubernetes_prepares_each_model_and_scales_by_a_metric_of_the_gateway(path: Path) -> None:
    made_ = made("kubernetes", path, HUB_ONLY, remote_store="s3://bucket", max_replicas=3)
    found = checked_objects(made_.files["llama-runner.yaml"])
    assert [kind for kind, _ in found] == ["ConfigMap", "Deployment", "Service", "HorizontalPodAutoscaler"]
    pod = found["Deployment", "llama-gateway"]["spec"]["template"]["spec"]
    words = [each.get("args") or each["command"] for each in pod["initContainers"]]
    assert words[0] == [
        "sh", "-c", "install -m 400 /run/secrets/llama-gateway-api-key /run/private/api-key",
    ]  # fmt: skip
    assert [each[:2] for each in words[1:]] == [["prepare", "a"], ["prepare", "b"]]
    assert pod["containers"][0]["args"] == ["up", "--config=/etc/llama-gateway/llama-runner.toml"]
    data = found["ConfigMap", "llama-gateway-config"]["data"]
    assert data["file-1.toml"] == HUB_ONLY
    assert 'api_key_file = "/run/private/api-key"' in data["file-0.toml"]
    assert 'remote_store = "s3://bucket"' in data["file-0.toml"]
    scaler = found["HorizontalPodAutoscaler", "llama-gateway"]["spec"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "llama_runner_in_flight"
    with pytest.raises(CannotGenerate, match="which is on this machine only"):
        made("kubernetes", path, CONFIG)


def test_tokens_are_files_of_a_secret_where_the_configuration_names_them(path: Path) -> None:
    text = '[models.a]\nsource = "o/a"\ntoken_file = "keys/hub"\n[models.b]\nsource = "o/b"\ntoken_file = "keys/hub"\n'
    found = checked_objects(made("kubernetes", path, text).files["llama-runner.yaml"])
    pod = found["Deployment", "llama-gateway"]["spec"]["template"]["spec"]
    assert [each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each] == [
        "llama-gateway-api-key", "llama-gateway-hub-token-0",
    ]  # fmt: skip
    places = [each["mountPath"] for each in pod["containers"][0]["volumeMounts"]]
    assert places.count("/etc/llama-runner/keys/hub") == 1


def test_models_can_be_chosen_or_have_containers_of_their_own(path: Path) -> None:
    three = f'{HUB_ONLY}[models.c]\nsource = "o/c"\n'
    service = checked_compose(made("compose", path, three, "a", "c").files["compose.yaml"])["services"]["llama-gateway"]
    assert service["command"][:3] == ["up", "a", "c"]
    assert list(checked_compose(made("compose", path, three, per_model=True).files["compose.yaml"])["services"]) == [
        "a", "b", "c",
    ]  # fmt: skip
    assert list(checked_compose(made("compose", path, three, "b").files["compose.yaml"])["services"]) == ["b"]


def test_a_key_of_a_model_that_the_gateway_does_not_use_is_told(path: Path) -> None:
    found = made("compose", path, f'{HUB_ONLY}api_key_file = "keys/b"\nport = 9000\n')
    assert found.notes == ("b: port, api_key_file of the model are not used: [gateway] has one for all",)
    assert "keys/b" not in found.files["compose.yaml"]


@pytest.mark.skipif(QUADLET is None, reason="there is no quadlet")
def test_podman_makes_a_service_of_the_gateway(path: Path, tmp_path: Path) -> None:
    assert QUADLET is not None
    files = made("quadlet", path, CONFIG.replace("hub token", "hub-token"))
    files.write(f"{tmp_path}/units/")
    done = subprocess.run(
        [QUADLET, "-user", "-dryrun"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "QUADLET_UNIT_DIRS": str(tmp_path / "units")},
    )
    assert (
        f"-v {tmp_path}/units/llama-runner-llama-gateway-0.toml:/etc/llama-gateway/llama-runner.toml:ro" in done.stdout
    )
    assert f"-v {path}:/etc/llama-runner/llama-runner.toml:ro" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{HUB_ONLY}device = "cuda"', "has device: the image has the programs"),
        (f'{HUB_ONLY}profile = "fast"', "has a profile, which was measured on this machine"),
        (f'[gateway]\nlisten = ["0.0.0.0:80"]\n{HUB_ONLY}', "the gateway has no API key, and whoever reaches 0.0.0.0"),
        (f'environment = ["HOME"]\n{HUB_ONLY}', "the container has no variables of this machine"),
    ],
)
def test_what_the_gateway_could_not_do_there_is_refused(text: str, said: str, path: Path) -> None:
    with pytest.raises(CannotGenerate) as raised:
        made("compose", path, text)
    assert said in str(raised.value)
