"""Options of a training are checked, and numbers that are only written otherwise are the same."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from llama_runner.core.errors import UsageError
from llama_runner.training.loss_plot import loss_plot
from llama_runner.training.model_card import model_card
from llama_runner.training.options import TrainingOptions, continued_options, training_options


def test_the_same_numbers_are_the_same_options() -> None:
    assert (
        training_options({"learning_rate": 0.0002}) == training_options({"learning_rate": "2e-4"}) == TrainingOptions()
    )
    assert training_options({"rank": 4}).alpha == 8
    assert training_options({"rank": 4, "alpha": 4}).alpha == 4
    assert training_options({"targets": "q_proj, v_proj,q_proj"}).targets == ("q_proj", "v_proj")
    assert training_options({"targets": "attention"}).targets == ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.mark.parametrize(
    "given",
    [
        {"rank": 0}, {"rank": True}, {"rank": "8"}, {"epochs": 0}, {"batch": -1}, {"seed": 2**32}, {"length": 1},
        {"dropout": 1}, {"dropout": -0.1}, {"learning_rate": 0}, {"learning_rate": float("nan")}, {"validation": 1},
        {"learning_rate": "x"}, {"learning_rate": float("inf")}, {"targets": ""}, {"targets": "a b"}, {"targets": 7},
        {"loss": "none"}, {"early_stopping": 2}, {"gradient_checkpointing": 1}, {"ranks": 1},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        training_options(given)


def test_what_begins_with_the_weights_of_a_version_has_its_options() -> None:
    start = {"rank": 2, "alpha": 4, "dropout": "0.05", "targets": ["v_proj", "q_proj"], "epochs": 7}
    found = continued_options({"epochs": 1}, "a@v1", start)
    assert (found.rank, found.alpha, found.dropout, found.targets) == (2, 4, "0.05", ("v_proj", "q_proj"))
    assert found.epochs == 1
    same = {"rank": 2, "dropout": 0.05, "targets": "q_proj,v_proj"}
    assert continued_options({**same, "epochs": 1}, "a@v1", start) == found
    for given in ({"rank": 16}, {"alpha": 8}, {"dropout": 0}, {"targets": "all"}):
        with pytest.raises(UsageError, match="in a@v1, whose weights training begins with; got") as caught:
            continued_options(given, "a@v1", start)
        assert caught.value.hint


def test_a_plot_is_svg_and_the_same_for_the_same_numbers() -> None:
    plot = loss_plot("a <b> & \x1b", [3.0, 2.0, 1.0], [(2, 2.5), (3, 2.0)])
    assert plot == loss_plot("a <b> & \x1b", [3.0, 2.0, 1.0], [(2, 2.5), (3, 2.0)])
    root = ET.fromstring(plot)
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"loss", "validation loss", "step"} <= set(texts)
    for losses in ([], [0.0], [1e-9] * 5000, [1e9, 1e-9]):
        ET.fromstring(loss_plot("x", losses, []))


def test_a_card_names_a_base_of_the_hub_and_no_other() -> None:
    assert 'base_model: "org/model"' in model_card("a", "org/model", {}, {})
    assert "base_model" not in model_card("a", "demo", {}, {})
    assert "| loss | 0.5 |" in model_card("a", "demo", {}, {"loss": 0.5})
