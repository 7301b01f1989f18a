"""A model whose weights are in MXFP4: it is served as it is, and made worse only if one insists."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Command, says
from tests.convert.families import gptoss, quantized


def test_mxfp4_is_served_as_it_is_and_made_worse_only_if_one_insists(
    root: Path, llama_runner: Command, tmp_path: Path
) -> None:
    model = tmp_path / "tiny-oss"
    gptoss.CASES["mxfp4"].build(model)
    served = llama_runner("prepare", model, "--root", root, "--json").json
    assert served["ran"] == ["convert"]
    (told,) = llama_runner("convert", model, "--root", root, "--json").json
    assert told["facts"]["quantized_before"] == "mxfp4"
    words = ("prepare", model, "--root", root, "-q")
    says(llama_runner(*words, "q4_k_m"), 2, "the model is mxfp4_moe already", "--allow-requantize")
    assert llama_runner(*words, "mxfp4_moe", "--json").json["ran"] == ["quantize"]
    insisted = llama_runner(*words, "q4_k_m", "--allow-requantize", "--json").json
    assert insisted["ran"] == ["quantize"]


def test_that_weights_were_quantized_before_is_said(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    model = tmp_path / "tiny"
    quantized.CASES["gptq-4"].build(model)
    result = llama_runner("prepare", model, "-q", "q4_0", "--root", root)
    assert result.code == 0
    assert "the weights were quantized before (gptq, 4 bits); that loss of precision remains" in result.err
