"""What CONTRIBUTING.md, the hooks, the changelog, the table of pains and the table of old names say is so."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from llama_runner import OLD_NAMES
from llama_runner.cli.help import OLD_FLAGS
from llama_runner.library.model_library import Library
from tests.conftest import REPOSITORY

CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAINS = (REPOSITORY / "docs" / "pains.md").read_text(encoding="utf-8")
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
DEPRECATION = (REPOSITORY / "docs" / "deprecation.md").read_text(encoding="utf-8")
TESTS = {
    name
    for path in (REPOSITORY / "tests").rglob("test_*.py")
    for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
}


def test_every_row_of_the_pains_names_tests_that_exist_and_carry_its_number() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", PAINS, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    for number, named in rows:
        names = re.findall(r"`(test_\w+)`", named)
        assert names, number
        assert all(name.startswith(f"test_pain_{int(number):02}_") for name in names), number
        assert set(names) <= TESTS


def test_every_test_of_a_pain_has_a_row() -> None:
    rows = set(re.findall(r"^\| (\d+) \|", PAINS, re.MULTILINE))
    numbers = {match[1] for name in TESTS if (match := re.match(r"test_pain_(\d\d)_", name))}
    assert {str(int(number)) for number in numbers} == rows


def test_every_old_name_that_works_is_listed_with_its_new_one() -> None:
    listed = dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| [\d.]+ \| [\d.]+ \|$", DEPRECATION, re.MULTILINE))
    old_names = {f"llama_runner.{old}": f"llama_runner.{new}" for old, new in OLD_NAMES.items()}
    assert OLD_FLAGS.items() | old_names.items() <= listed.items()
    keywords = {name: re.fullmatch(r"Runner\.models\.(\w+)\((\w+)=\w+\)", name) for name in listed if "(" in name}
    for match in keywords.values():
        assert match is not None
        assert match[2] in inspect.signature(getattr(Library, match[1])).parameters
    modules = {name for name in listed if not name.startswith("-")} - set(old_names) - set(keywords)
    for name in modules:
        assert (REPOSITORY / name.replace(".", "/")).is_dir() or (REPOSITORY / f"{name.replace('.', '/')}.py").is_file()
    assert set(listed) == {*OLD_FLAGS, *old_names, *keywords, *modules}


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    versions = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_files_and_functions_that_contributing_names_exist() -> None:
    folders = "llama_runner|tests|scripts|examples|request|serving|docs|benchmarks"
    paths = set(re.findall(rf"`((?:{folders})/[\w./]+)`", CONTRIBUTING))
    made = {"llama_runner/steps/NAME.py", "llama_runner/convert/families/xverse.py",
            "tests/convert/families/xverse.py", "tests/data/convert/unconfirmed/"}  # fmt: skip
    assert len(paths) > 15
    for name in paths - made:
        assert (REPOSITORY / name).exists() or (REPOSITORY / "llama_runner" / name).exists(), name
    for name in re.findall(r"\b(test_\w+)`|::(test_\w+)", CONTRIBUTING):
        assert "".join(name) in TESTS or name[0] == "test_pain_NN_…"


def test_hooks_run_scripts_of_the_repository_and_fetch_nothing() -> None:
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    for hook in config["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        script, check = hook["entry"].split()
        assert os.access(REPOSITORY / script, os.X_OK)
        assert f"{check})" in (REPOSITORY / script).read_text(encoding="utf-8")


def test_sessions_run_scripts_that_exist() -> None:
    text = (REPOSITORY / "noxfile.py").read_text(encoding="utf-8")
    scripts = set(re.findall(r'"(scripts/[\w.]+)"', text))
    assert scripts == {"scripts/lint.sh", "scripts/test.sh", "scripts/fuzz.py"}
    assert all((REPOSITORY / script).is_file() for script in scripts)
    for session in re.findall(r"nox -s (\w+)", CONTRIBUTING):
        assert f"def {session}(" in text


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.name
)
def test_templates_of_issues_are_forms(path: Path) -> None:
    form: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": False}
        return
    assert {"name", "description", "body"} <= set(form)
    for part in form["body"]:
        assert part["type"] in {"markdown", "input", "textarea", "dropdown", "checkboxes"}
        assert "value" in part["attributes"] if part["type"] == "markdown" else part["attributes"]["label"]


WORKFLOW = REPOSITORY / ".github" / "workflows" / "ci.yml"


def test_19_05_the_workflow_covers_each_system_and_runs_what_this_repository_has() -> None:
    workflow: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    systems = [*jobs["tests"]["strategy"]["matrix"]["os"], jobs["windows"]["runs-on"]]
    assert [name.split("-")[0] for name in systems] == ["ubuntu", "ubuntu", "macos", "windows"]
    assert sum(name.endswith("-arm") for name in systems) == 1
    ran = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    for program, *words in [shlex.split(command, posix=False) for command in ran]:
        name = PureWindowsPath(program).as_posix()
        if name == ".venv/Scripts/llama-runner":
            subprocess.run([sys.executable, "-m", "llama_runner", words[0], "--help"], check=True, capture_output=True)
        elif name == ".venv/Scripts/python":
            assert words[:2] in (["-m", "pip"], ["-m", "pytest"])
            assert all((REPOSITORY / word).exists() for word in words if "/" in word)
        else:
            assert (REPOSITORY / name).is_file(), name


def test_19_05_the_workflow_runs_on_windows_what_is_run_under_wine() -> None:
    steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["windows"]["steps"]
    [tests] = [
        step["run"].partition("tests.windows.left_out ")[2] for step in steps if "pytest -p" in step.get("run", "")
    ]
    assert f" {tests}\n" in (REPOSITORY / "scripts" / "test_windows.sh").read_text(encoding="utf-8")


def test_19_05_the_workflow_has_the_form_that_github_expects() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_19_05_actionlint_finds_nothing() -> None:
    actionlint = shutil.which("actionlint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if actionlint is None:
        pytest.skip("actionlint is not installed: its package fetches it from GitHub")
    done = subprocess.run([actionlint, str(WORKFLOW)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
