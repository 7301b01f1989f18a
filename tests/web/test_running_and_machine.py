"""What runs, and the machine, as the page shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.web.browser import Browser
from tests.web.conftest import StartGateway
from tests.web.hostile_names import IMAGE, declared

GPU = f"GeForce {IMAGE}"


def test_what_runs_is_followed_until_it_stops_with_its_speed_memory_and_log(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(declared([IMAGE]))
    browser.open(f"{gateway.url}/ui#/running")
    browser.shows("No model runs.")
    assert gateway.chat(IMAGE, max_tokens=8)[0] == 200
    browser.one("tr .tag.good", "Ready")
    browser.shows("0 of 4")
    browser.shows("0 answered now, 0 wait")
    browser.one("tr", "0 tokens/s")
    browser.one(".meter", "that models may take")
    browser.press(f"Log: {IMAGE}")
    browser.shows(f"Log of {IMAGE}")
    browser.until(lambda: len(browser.one("pre").text.splitlines()) > 10)
    browser.fill("Only lines with", "no line has this")
    browser.until(lambda: browser.all("pre")[0].text == "")
    browser.press(f"Stop: {IMAGE}")
    browser.shows("No model runs.")
    browser.shows("Nothing writes to this log any more.")
    assert browser.all("main img") == []


def test_requests_that_wait_are_counted_while_they_wait(
    browser: Browser, start: StartGateway, slow_programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGML_TEST_GATE", str(tmp_path / "gate"))
    gateway = start(f'[models.one]\ndemo = true\nbinaries = "{slow_programs}"\n')
    browser.open(f"{gateway.url}/ui#/running")
    browser.shows("No model runs.")
    script = """fetch("/v1/chat/completions", { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model: arguments[0], messages: [{ role: "user", content: "hi" }], max_tokens: 2 }) })"""
    browser.driver.execute_script(script, "one")
    browser.shows("1 wait")
    (tmp_path / "gate").touch()
    browser.one("tr .tag.good", "Ready")
    browser.shows("0 answered now, 0 wait")


def test_gpus_are_shown_with_their_memory_as_the_program_of_their_driver_says(
    browser: Browser, start: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = tmp_path / "used"
    used.write_text("4096")
    write_nvidia_smi(tmp_path / "bin", used)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    browser.open(f"{start().url}/ui#/machine")
    browser.one(".meter", GPU)
    before = browser.one(".meter", "4.3 GB of 26 GB in use (16 %)")
    used.write_text("12288")
    after = browser.one(".meter", "13 GB of 26 GB in use (50 %)")  # by an event
    assert after == before, "what is shown again is the same element"
    browser.one("p", "Second does not say how much of its memory is free")
    browser.one("dd", GPU)
    assert browser.all("main img") == []


def write_nvidia_smi(directory: Path, used: Path) -> None:
    directory.mkdir()
    program = directory / "nvidia-smi"
    program.write_text(
        f"""#!/bin/sh
case "$*" in *query-gpu=name*)
  echo "{GPU}, 24576, $(cat {used}), 550.54, 8.9"
  echo "Second, 8192, [N/A], 550.54, 8.6";;
esac
"""
    )
    program.chmod(0o755)


def test_the_machine_is_shown_live_with_what_is_missing_and_how_to_install_it(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start()
    browser.open(f"{gateway.url}/ui#/machine")
    for each in ("Processor", "Memory", "Disk"):
        browser.one(".meter", each)
    found = gateway.get("/api/v1/doctor")[1]
    browser.shows("Check again")
    browser.one("td[data-title=Name]", "cuda")
    text = browser.text()
    assert found["cpu"]["model"] in text
    for each in found["problems"]:
        assert each["what"] in text
    for backend in found["toolchains"]["backends"].values():
        if backend["missing"]:
            assert backend["install"] in text
