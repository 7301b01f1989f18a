"""LoRA adapters on the Hub: pinned, verified and converted like models."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.errors import DownloadError, SourceError, UsageError
from llama_runner.request.adapter_check import WrongBase
from tests.conftest import Command
from tests.e2e.lora import write_adapter
from tests.e2e.peft import write_peft
from tests.fakehub.hub import Hub


@pytest.fixture(autouse=True)
def environment(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hub on loopback the Hub, of a user who has nothing of it yet."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf home"))


def files_of(directory: Path) -> dict[str, bytes | Path]:
    return {path.name: path for path in directory.iterdir()}


def requests(hub: Hub) -> list[str]:
    return [request.path for request in hub.requests]


def test_a_peft_directory_on_the_hub_is_pinned_converted_and_used_without_the_network_again(
    hub: Hub, root: Path, tmp_path: Path
) -> None:
    local = write_peft(tmp_path / "legal-lora", 1)
    hub.repo("acme/legal-lora", {**files_of(local), "README.md": b"# Legal\n", "optimizer.pt": b"pickle"})
    first = Runner(root).prepare(demo=True, lora=["legal=acme/legal-lora:0.5"])
    assert set(first.ran) >= {"download", "adapter"}
    assert (first.adapter_names, first.adapter_scales) == (("legal",), (0.5,))
    assert not any("optimizer" in path for path in requests(hub))
    asked = len(hub.requests)
    again = Runner(root).prepare(demo=True, lora=["legal=acme/legal-lora"], offline=True)
    assert (again.ran, again.adapters, len(hub.requests)) == ((), first.adapters, asked)
    (local / "README.md").write_text("# Legal\n")
    own = Runner(root).prepare(demo=True, lora=[local])
    assert own.adapters[0].read_bytes() == first.adapters[0].read_bytes(), "it is converted as a clone would be"


def test_a_gguf_adapter_on_the_hub_is_served_where_it_was_put(hub: Hub, root: Path, tmp_path: Path) -> None:
    model = Runner(root).prepare(demo=True).model
    one, two = (write_adapter(tmp_path / f"{name}.gguf", model, seed) for seed, name in enumerate("ab"))
    hub.repo("acme/one", {"lora.gguf": one, "README.md": b"x"})
    hub.repo("acme/two", {"a.gguf": one, "b.gguf": two})
    found = Runner(root).prepare(demo=True, lora=["acme/one", "hf://acme/two/b.gguf"])
    assert [path.read_bytes() for path in found.adapters] == [one.read_bytes(), two.read_bytes()]
    assert found.adapter_names == ("one", "b")
    with pytest.raises(SourceError, match=r"has several GGUF files: a\.gguf, b\.gguf") as caught:
        Runner(root).prepare(demo=True, lora=["acme/two"])
    assert caught.value.hint == "name one: hf://acme/two/a.gguf"
    with pytest.raises(SourceError, match=r"has no adapter c\.gguf"):
        Runner(root).prepare(demo=True, lora=["hf://acme/two/c.gguf"])


def test_base_and_adapter_may_both_be_on_the_hub(hub: Hub, root: Path, tmp_path: Path) -> None:
    model = Runner(root).prepare(demo=True).model
    hub.repo("acme/demo-GGUF", {"demo-Q4_K_M.gguf": model})
    hub.repo("acme/legal-lora", files_of(write_peft(tmp_path / "legal-lora", 1)))
    plan = Runner(root).plan("acme/demo-GGUF", lora=["acme/legal-lora"])
    assert [step.step.kind for step in plan.plan.steps].count("download") == 2
    found = Runner(root).prepare("acme/demo-GGUF", lora=["acme/legal-lora"])
    assert found.adapters[0].is_file()
    assert Runner(root).prepare("acme/demo-GGUF", lora=["acme/legal-lora"], offline=True).ran == ()


def test_an_adapter_that_arrives_with_other_bytes_is_not_kept(hub: Hub, root: Path, tmp_path: Path) -> None:
    adapter = files_of(write_peft(tmp_path / "legal-lora", 1))
    hub.repo("acme/legal-lora", adapter)
    hub.fault("wrong_bytes", path="*adapter_model.safetensors", times=None)
    with pytest.raises((DownloadError, SourceError)):
        Runner(root).prepare(demo=True, lora=["acme/legal-lora"])
    hub.faults.clear()
    assert "adapter" in Runner(root).prepare(demo=True, lora=["acme/legal-lora"]).ran


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"README.md": b"x"}, "has no LoRA adapter"),
        ({"adapter_config.json": b"{}", "adapter_model.bin": b"pickle"}, "has no LoRA adapter"),
        ({"adapter_config.json": b"[1]", "adapter_model.safetensors": b"x"}, "is not a JSON object"),
        ({"adapter_config.json": b"{", "adapter_model.safetensors": b"x"}, "cannot be read"),
    ],
)
def test_a_repository_without_an_adapter_is_told(
    hub: Hub, root: Path, files: dict[str, bytes | Path], said: str
) -> None:
    hub.repo("acme/none", files)
    with pytest.raises(SourceError, match=said):
        Runner(root).prepare(demo=True, lora=["acme/none"])


def test_a_model_on_the_hub_is_no_adapter(hub: Hub, root: Path) -> None:
    hub.repo("acme/model", {"model.gguf": Runner(root).prepare(demo=True).model})
    with pytest.raises(WrongBase, match="it is no adapter, but a model"):
        Runner(root).prepare(demo=True, lora=["acme/model"])


def test_a_name_is_not_asked_for_without_the_network(root: Path) -> None:
    with pytest.raises((DownloadError, SourceError, UsageError), match="acme/legal"):
        Runner(root).prepare(demo=True, lora=["acme/legal"], offline=True)


def test_an_adapter_of_the_hub_is_no_model_of_the_store_and_its_files_are_verified(
    hub: Hub, root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    hub.repo("acme/legal-lora", files_of(write_peft(tmp_path / "legal-lora", 1)))
    Runner(root).prepare(demo=True, lora=["acme/legal-lora"])
    listed = [each["name"] for each in llama_runner("models", "list", "--root", root, "--json").json]
    assert [name for name in listed if "legal" in name] == []
    assert llama_runner("verify", "--root", root).code == 0
