"""Test an application against a real model with the pytest fixture `llama_server`.

The fixture comes with the package: nothing has to be switched on. It is a `Client` of a server that is ready; one
server for each model runs until the end of the session. Run it with ``pytest examples/test_with_fixture.py``.
"""

from __future__ import annotations

import pytest

from llama_runner import Client


def one_line(client: Client, question: str) -> str:
    """Stand for the application: ask, and keep the first line."""
    return client.chat(question, temperature=0, max_tokens=64).text.partition("\n")[0]


def test_the_answer_is_one_line(llama_server: Client) -> None:
    """The demo model is served where no mark says another."""
    answer = one_line(llama_server, "what is a step?")
    assert answer.startswith("A step is")


@pytest.mark.llama_model(demo=True, quantization="q8_0", ctx_size=512)
def test_another_quantization_answers_too(llama_server: Client) -> None:
    """The mark takes what `Runner.prepare` and `ServerOptions` take."""
    assert llama_server.props().context == 512
    assert one_line(llama_server, "what is a step?")
