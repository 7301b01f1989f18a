"""docs/management-api.md: its commands answer, its routes are those of the table, its types of events exist."""

from __future__ import annotations

import json
import re
import subprocess

from llama_runner.gateway.event_log import TYPES
from llama_runner.gateway.management.route_table import OPERATIONS
from tests.conftest import REPOSITORY
from tests.gateway.conftest import Start

PAGE = (REPOSITORY / "docs" / "management-api.md").read_text(encoding="utf-8")
ROUTES = {f"{each.method} {each.path}" for each in OPERATIONS}


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_commands_answer(gateway: Start) -> None:
    running = gateway("[models.demo]\ndemo = true\nctx_size = 1024\n")
    [block] = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines():
        command = line.replace("http://127.0.0.1:8080", running.url)
        done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout).get("error") is None, (line, done.stdout)


def test_every_route_is_in_the_table_with_its_parameters() -> None:
    rows = dict(re.findall(r"^\| `([A-Z]+ /\S*)` \| .+? \| (.*) \|$", section("Routes"), re.MULTILINE))
    assert rows.keys() == ROUTES
    for each in OPERATIONS:
        named = [one.name for one in each.parameters if one.place == "query"] or list(
            (each.body or {}).get("properties", {})
        )
        assert re.findall(r"`(\w+)`", rows[f"{each.method} {each.path}"]) == named


def test_each_route_of_studio_has_one_here() -> None:
    rows = re.findall(r"^\| `[^`]+` \| (.+) \|$", section("The routes of llama.cpp Studio"), re.MULTILINE)
    assert len(rows) == 23
    for row in rows:
        assert {*re.findall(r"`([A-Z]+ [^`]+)`", row)} <= ROUTES
        assert "`" in row


def test_every_type_of_event_is_named() -> None:
    named = {
        word for row in section("Events").splitlines() if row.startswith("| `") for word in row.split("|")[1].split("`")
    }
    assert {word for word in named if word.strip(" ,")} == {*TYPES}
