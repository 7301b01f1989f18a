"""ESLint finds nothing in the modules of the page."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from llama_runner.web import page_files
from tests.web.npm import node_modules

CONFIG = """
import js from "@eslint/js";
import globals from "globals";
const more = ["eqeqeq", "no-var", "prefer-const", "no-eval", "no-implied-eval", "no-script-url"];
export default [js.configs.recommended, {
  languageOptions: { globals: globals.browser },
  rules: { ...Object.fromEntries(more.map((rule) => [rule, "error"])), "no-control-regex": "off" },
}];
"""


def test_eslint_finds_nothing(tmp_path: Path) -> None:
    packages = node_modules("eslint", "eslint@9", "@eslint/js@9", "globals@16")
    (tmp_path / "node_modules").symlink_to(packages)
    (tmp_path / "eslint.config.mjs").write_text(CONFIG, encoding="utf-8")
    shutil.copytree(Path(page_files.__file__).parent / "static", tmp_path / "static")
    command = ["node", str(packages / "eslint" / "bin" / "eslint.js"), "static"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
