"""The page of the gateway in Chromium: first paint, first content, and frames while 1,000 models are scrolled.

    python benchmarks/page.py [--root DIR] [--rounds 15]

Each round opens the page and, for comparison, a document with one line of text that Python's HTTP server sends. Figures
are medians of the rounds in milliseconds, each with an empty cache; ``ratio`` is the median of the ratios within each
round, since other work on the machine slows both. ``frames_ms`` are the times between two frames while the list is
scrolled, beside those of the plain document. ``page_bytes`` are those of the document and its files, ``all_bytes``
also those of the answers of the gateway, both without headers. Needs chromium and chromium-driver. Prints one JSON
document.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from gateway_targets import Gateway
from selenium import webdriver

MODELS = 1000
GOAL_MS = 300
_PLAIN = b"<!doctype html><title>plain</title><p>plain" + b"<p>row" * 2000
_PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
_CONTENT = "return document.querySelector('main td') ? performance.now() : 0"
_SIZES = """
const sum = (entries) => entries.reduce((total, each) => total + (each.encodedBodySize ?? 0), 0);
const all = performance.getEntries();
return [sum(all.filter((each) => new URL(each.name, location).pathname.startsWith("/ui"))), sum(all)];"""
_SCROLL = """
const done = arguments[0], gaps = [];
let before = performance.now(), left = 120;
requestAnimationFrame(function next(now) {
  gaps.push(now - before);
  before = now;
  scrollBy(0, left % 60 < 30 ? 90 : -90);
  if ((left -= 1) > 0) requestAnimationFrame(next);
  else done(gaps.slice(2));
});"""


class _Plain(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(_PLAIN)))
        self.end_headers()
        self.wfile.write(_PLAIN)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base
        """Write nothing."""


def started(profile: str) -> webdriver.Chrome:
    """Start Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for each in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(each)
    options.add_argument(f"--user-data-dir={profile}")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def value(driver: webdriver.Chrome, script: str) -> float:
    """Return the first value of a script that is not 0."""
    end = time.monotonic() + 60
    while not (found := driver.execute_script(script)):
        if time.monotonic() > end:
            raise SystemExit(f"nothing after 60 s: {script}")
        time.sleep(0.005)
    return float(found)


def opened(driver: webdriver.Chrome, address: str) -> float:
    """Open an address with an empty cache; return the milliseconds until it is painted."""
    driver.get("about:blank")
    driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    driver.get(address)
    return value(driver, _PAINT)


def frames(driver: webdriver.Chrome) -> dict[str, float]:
    """Scroll the document down and up; return the times between two frames."""
    gaps = sorted(driver.execute_async_script(_SCROLL))
    return {
        "median": round(statistics.median(gaps), 1),
        "p95": round(gaps[int(len(gaps) * 0.95)], 1),
        "longest": round(gaps[-1], 1),
    }


def measured(driver: webdriver.Chrome, page: str, plain: str, rounds: int) -> dict[str, Any]:
    """Open both in turn; return the figures."""
    paints, floors, contents = [], [], []
    requests = page_size = size = 0
    for _ in range(rounds):
        floors.append(opened(driver, plain))
        paints.append(opened(driver, page))
        contents.append(value(driver, _CONTENT))
        requests = driver.execute_script("return performance.getEntriesByType('resource').length") + 1
        page_size, size = driver.execute_script(_SIZES)
    while driver.execute_script("return document.querySelectorAll('main tbody tr').length") < 50:  # noqa: PLR2004
        time.sleep(0.02)
    scrolled = frames(driver)
    opened(driver, plain)
    return {
        "first_paint_ms": round(statistics.median(paints)),
        "first_paint_ms_highest": round(max(paints)),
        "plain_first_paint_ms": round(statistics.median(floors)),
        "ratio": round(statistics.median(one / other for one, other in zip(paints, floors, strict=True)), 2),
        "content_ms": round(statistics.median(contents)),
        "requests": requests,
        "page_bytes": page_size,
        "all_bytes": size,
        "frames_ms": scrolled,
        "plain_frames_ms": frames(driver),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root")
    parser.add_argument("--rounds", type=int, default=15)
    words = parser.parse_args()
    text = "".join(f'[models."model-{number:04d}"]\ndemo = true\n' for number in range(MODELS))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Plain)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    plain = f"http://127.0.0.1:{server.server_address[1]}/"
    with tempfile.TemporaryDirectory() as directory, Gateway(text, Path(directory), words.root) as gateway:
        driver = started(f"{directory}/chromium")
        try:
            found = measured(driver, f"http://127.0.0.1:{gateway.port}/ui", plain, words.rounds)
        finally:
            driver.quit()
            server.shutdown()
    print(json.dumps({"goal_ms": GOAL_MS, "models": MODELS, **found, "load": os.getloadavg()}, indent=2))


if __name__ == "__main__":
    main()
