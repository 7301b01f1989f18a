"""Releases of llama.cpp on the page: what is newer, what can be installed, using it and going back."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.store import layout
from llama_runner.system import hardware
from tests.fakereleases.index import Index
from tests.fakereleases.server import Releases
from tests.web.browser import Browser
from tests.web.conftest import StartGateway

PIN = load_pin(layout.pin_file())
ELSEWHERE = "llama-{tag}-bin-android-arm64.tar.gz"

pytestmark = pytest.mark.skipif(
    hardware.platform_tag() != "linux-x86_64", reason="the release holds programs for another machine"
)


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    """Return releases that the gateway asks for, beside a package index with a newer version."""
    wheels = {f"{PIN.package}-{version}-py3-none-any.whl": b"" for version in (PIN.version, "99.1")}
    with Releases() as found, Index(PIN.package, wheels) as index:
        for name, value in {**index.settings, "LLAMA_RUNNER_RELEASES": found.endpoint}.items():
            monkeypatch.setenv(name, value)
        yield found


def test_a_release_is_installed_used_and_left_again(
    browser: Browser, start: StartGateway, releases: Releases, root: Path, tmp_path: Path
) -> None:
    [programs] = {path.parent for path in root.glob(f"bins/{hardware.platform_tag()}/*/llama-server")}
    archive = tmp_path / f"llama-b{PIN.build}-bin-ubuntu-x64.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        for path in programs.glob("llama-*"):
            packed.add(path, f"llama-b{PIN.build}/{path.name}")
    releases.add(PIN.build, content={archive.name: archive.read_bytes()})
    browser.open(f"{start().url}/ui#/programs")
    browser.one("tr", "The next start takes it")
    browser.one("tr", programs.name)
    browser.press("Look for updates")
    browser.shows("99.1 (newer: 1)")
    browser.shows("A newer version of llama_runner uses what the package index has.")
    browser.shows(f"b{PIN.build} (nothing newer)")

    browser.fill("Release", f"b{PIN.build}")
    browser.press("Install")
    browser.one(".card .tag.good", "Done")
    browser.one(".card", "Installation")
    name = browser.one("tr .name", "prebuilt-").text
    browser.press(f"Use: {name}")
    browser.one("tr", "In use")
    assert name in browser.one("tr", "In use").text
    browser.press("Roll back")
    browser.gone("tr .tag", "In use")
    browser.press(f"Remove: {name}")
    browser.one("dialog", "are freed")
    browser.click("dialog button", "Remove")
    browser.told(f"{name} is removed")
    browser.gone("tr", "prebuilt-")
    assert not list(root.glob("bins/*/prebuilt-*/llama-server"))


def test_a_newer_release_is_offered_only_where_it_has_programs_for_this_machine(
    browser: Browser, start: StartGateway, releases: Releases
) -> None:
    releases.add(PIN.build + 95, names=(ELSEWHERE,))
    gateway = start()
    browser.open(f"{gateway.url}/ui#/programs")
    browser.press("Look for updates")
    browser.shows(f"b{PIN.build + 95} (newer: 95)")
    browser.one(".warning", "has no programs for this machine")
    assert "Install b" not in browser.text()
    browser.fill("Release", f"b{PIN.build + 95}")
    browser.press("Install")
    browser.one(".card .problem")
    releases.add(PIN.build + 96)
    assert gateway.get("/api/v1/programs/updates?offline=true")[0] == 200
