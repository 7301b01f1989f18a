"""Sessions over the scripts of this repository, in its own environment (.venv): ``nox --list``, ``nox -s docs``."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests"]
nox.needs_version = ">=2024.4.15"
PYTHON = ".venv/bin/python"
FLOOR_OF = "llama_runner/core/*,llama_runner/engine/*"
"""What decides and executes: the packages with a floor, measured with their own tests."""
QUIET = {"NO_MKDOCS_2_WARNING": "1"}


@nox.session
def lint(session: nox.Session) -> None:
    """Lint and type-check."""
    session.run("scripts/lint.sh", *session.posargs, external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    session.run("scripts/test.sh", *session.posargs, external=True)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which lines and branches of core and engine their tests run, child processes included; there is a floor.

    With arguments, which go to pytest, the whole package is measured and there is no floor.
    """
    session.run("scripts/lint.sh", "check", external=True)  # makes the environment
    tests = session.posargs or ["tests/core", "tests/engine", "tests/system"]
    session.run(
        PYTHON,
        "-m",
        "pytest",
        "--cov",
        "--cov-report=",
        "--cov-fail-under=0",
        "--numprocesses=auto",
        *tests,
        external=True,
    )
    report = ["--fail-under=0"] if session.posargs else [f"--include={FLOOR_OF}"]
    session.run(PYTHON, "-m", "coverage", "report", *report, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into build/site."""
    session.run("scripts/lint.sh", "check", external=True)
    session.run(PYTHON, "-m", "mkdocs", "build", "--strict", *session.posargs, external=True, env=QUIET)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Run the fuzz targets; arguments go to scripts/fuzz.py."""
    session.run("scripts/lint.sh", "check", external=True)
    session.run(PYTHON, "scripts/fuzz.py", *session.posargs, external=True)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure a warm start, or what is named: ``nox -s benchmarks -- convert``."""
    session.run("scripts/lint.sh", "check", external=True)
    for name in session.posargs or ["warm"]:
        session.run(PYTHON, f"benchmarks/{name}.py", external=True)
