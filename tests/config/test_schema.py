"""The JSON Schema accepts what is read and refuses what is not; the published one is that of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llama_runner.config.config import Config
from llama_runner.config.known_keys import MODEL_OPTIONS, ROOT
from llama_runner.config.schema import FILE_NAME, schema
from llama_runner.config.toml import loads
from llama_runner.core.errors import UsageError
from tests.config.files import Write
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema())


def toml_files() -> list[Any]:
    """Return every configuration file in the documentation."""
    pages = sorted([*(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md"])
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in pages
        for number, text in enumerate(re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
        if {*ROOT.keys, *ROOT.tables} & set(loads(text))  # the limits of the gateway are another file
    ]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads((REPOSITORY / "docs" / FILE_NAME).read_text()) == schema()


def test_every_key_is_in_it() -> None:
    model = schema()["properties"]["models"]["additionalProperties"]["properties"]
    assert set(MODEL_OPTIONS) <= set(model)
    assert set(schema()["properties"]) == {*ROOT.keys, *ROOT.tables}
    assert all(each.get("description") for name, each in model.items() if name in MODEL_OPTIONS)


@pytest.mark.parametrize("text", toml_files())
def test_the_files_of_the_documentation_are_read_and_fit_the_schema(
    text: str, write: Write, validator: jsonschema.Draft202012Validator
) -> None:
    for name in loads(text).get("include", ()):
        write("", name)
    Config.load(write(text), environment={"MODELS": "/models"})
    validator.validate(loads(text))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ('[models.a]\nsource = "x"\nport = 0\nctx_size = "auto"\nttl = "10m"\npin = true', True),
        ('[models."qwen:8b"]\ndemo = true\nllama = { a = [1, "b"], b = true }', True),
        ('[models.a]\nsource = "x"\n[models.a.adapters.l]\npath = "p"\n[models.a.variants.v]\nsystem = "s"', True),
        ('[gateway]\nmax_pull = "20G"\nmemory = { host = "80%", device = 5 }', True),
        ("[models.a]", False),
        ('[models.a]\nsource = "x"\ndemo = true', False),
        ('[models.a]\nsource = "x"\nport = "0"', False),
        ('[models.a]\nsource = "x"\nport = 70000', False),
        ('[models.a]\nsource = "x"\nprt = 1', False),
        ('[models.a]\nsource = "x"\nrestart = "maybe"', False),
        ('[models.a]\nsource = "x"\napi_key = "abcdef"', False),
        ('[models.a]\nsource = "x"\nsampling = { tempreature = 1 }', False),
        ('[models.a]\nsource = "x"\nttl = "1y"', False),
        ('[models.a]\nsource = "x"\n[models.a.adapters.l]\nscale = 1', False),
        ('[models."a,b"]\nsource = "x"', False),
        ('[presets.p]\nsource = "x"', False),
        ('[gateway.memory]\nhost = "a lot"', False),
        ("x = 1", False),
    ],
)
def test_the_schema_and_the_reader_agree(
    text: str, fits: bool, write: Write, validator: jsonschema.Draft202012Validator
) -> None:
    assert validator.is_valid(loads(text)) == fits
    try:
        Config.load(write(text))
    except UsageError:
        assert not fits
    else:
        assert fits


def test_examples_of_the_project_fit(validator: jsonschema.Draft202012Validator) -> None:
    for path in Path(REPOSITORY).rglob("examples/**/llama-runner.toml"):
        validator.validate(loads(path.read_text()))
