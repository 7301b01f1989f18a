"""Builds of llama.cpp and the configuration file, as the page shows and changes them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from selenium.webdriver.support.select import Select

from tests.web.browser import Browser
from tests.web.conftest import StartGateway
from tests.web.hostile_names import IMAGE, declared


def test_a_build_is_used_rolled_back_compiled_and_removed_only_when_that_is_confirmed(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(declared(["demo"]))
    build = gateway.get("/api/v1/programs")[1]["programs"][0]["name"]
    browser.open(f"{gateway.url}/ui#/programs")
    browser.shows("Each start takes the build that suits it.")
    browser.press(f"Use: {build}")
    browser.one("tr .tag.good", "In use")
    browser.shows(f"Later starts take {build}")
    browser.press("Roll back")
    browser.press(f"Use: {build}")
    assert gateway.post("/api/v1/programs/auto/activate", {})[0] == 200
    browser.gone("tr .tag", "In use")  # what another client did

    browser.shows("Not asked yet")
    browser.fill("Release", "../../bin/sh")
    browser.press("Install")
    browser.one(".notice.bad", "is no tag of a release")
    browser.click(".notice.bad button")
    form = browser.one("form", "Compilers at once")
    Select(form.find_element("tag name", "select")).select_by_value("cpu")
    browser.click("form button", "Compile")
    browser.one(".card .tag.good", "Done")

    browser.press(f"Remove: {build}")
    browser.one("dialog", "are freed")
    browser.click("dialog button", "Remove")
    browser.one("dialog", "is what a run takes")
    browser.click("dialog button", "Cancel")
    browser.gone("dialog")
    assert gateway.get("/api/v1/programs")[1]["programs"][0]["name"] == build


def test_a_compilation_is_followed_in_its_log_and_what_went_wrong_is_told_as_text(
    browser: Browser, start: StartGateway, root: Path, binaries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(binaries / "vendor", root / "vendor", copy_function=os.link)
    compiler, go_on = tmp_path / "cc", tmp_path / "go on"
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in *CMake*);; *) echo "cc 1.0"; exit;; esac\n'
        f'while [ ! -e "{go_on}" ]; do sleep 0.05; done\necho "{IMAGE}: no such target" >&2\nexit 1\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    browser.open(f"{start().url}/ui#/programs")
    form = browser.one("form", "Compilers at once")
    Select(form.find_element("tag name", "select")).select_by_value("cpu")
    browser.click("form button", "Compile")
    browser.one(".card .tag.busy", "Running")
    browser.press("Log: cpu")
    browser.until(lambda: "cmake" in browser.one(".card pre").text.lower(), "the log while it runs")
    go_on.touch()
    browser.one(".card .tag.bad", "Failed")
    browser.until(lambda: f"{IMAGE}: no such target" in browser.one(".card .log pre").text)
    browser.one(".card .problem")
    assert browser.all("main img") == []


def test_a_key_is_changed_by_a_form_and_the_difference_is_shown_before_it_is_saved_with_its_comments(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start('# mine\n[models.demo]\ndemo = true # "stays"\n')
    before = gateway.config.read_text()
    browser.open(f"{gateway.url}/ui#/configuration/models/demo")
    browser.one("tr", "threads")
    assert "defaults" in browser.one("tr", "threads").text
    assert "llama-runner.toml:2" in browser.one("tr", "threads").text
    browser.click("label", "Show keys that are not set too")
    browser.fill("Filter the keys", "ctx_size")
    browser.press("Change: ctx_size")
    browser.fill("New value", "512")
    browser.click("dialog button", "Note the change")
    browser.shows("ctx_size becomes 512")
    assert gateway.config.read_text() == before
    browser.press("Show what changes")
    assert "+ctx_size = 512" in browser.one("pre .added").text
    assert gateway.config.read_text() == before
    browser.press("Save")
    browser.shows("Comments are kept.")
    browser.until(lambda: "llama-runner.toml:6" in browser.one("tr", "ctx_size").text)
    text = gateway.config.read_text()
    assert "# mine" in text
    assert '# "stays"' in text
    assert "ctx_size = 512" in text

    browser.press("Remove from the file: ctx_size")
    browser.press("Show what changes")
    browser.press("Save")
    browser.until(lambda: gateway.config.read_text() == before)


def test_the_text_of_the_file_is_checked_and_a_file_that_changed_meanwhile_is_not_overwritten(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(declared([IMAGE]))
    before = gateway.config.read_text()
    browser.open(f"{gateway.url}/ui#/configuration/gateway")
    browser.click("summary", "Edit the text of the file")
    browser.fill("Text of the file", "[models.x]\nnothing = 1\n")
    browser.press("Show what the text changes")
    browser.one(".notice.bad")
    browser.fill("Text of the file", f"# edited\n{before}")
    gateway.config.write_text(f"{before}# by an editor\n")
    browser.press("Show what the text changes")
    browser.one(".notice.bad", "was changed since it was read")
    assert gateway.config.read_text() == f"{before}# by an editor\n"
    browser.click("select option", f"Model: {IMAGE}")
    browser.one("tr", "demo")
    assert browser.all("main img") == []
