"""Sessions over the scripts of this repository, in its own environment (.venv): ``nox --list``, ``nox -s docs``."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests"]
nox.needs_version = ">=2024.4.15"
PYTHON = ".venv/bin/python"
COVERED = (
    *(f"tests/{name}" for name in ("core", "system", "engine", "client", "convert", "sources", "llama_cpp", "serving")),
    "tests/cli/test_bad_input.py",
    "tests/e2e/test_demo.py",
)
"""The tests that the floor of coverage is measured with: those of single packages, and two of whole commands."""
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
    """Measure which lines and branches the tests of single packages run, child processes included; there is a floor.

    With arguments, which go to pytest, there is none: ``nox -s coverage -- tests/cli``.
    """
    session.run("scripts/lint.sh", "check", external=True)  # makes the environment
    chosen = ["--cov-fail-under=0", *session.posargs] if session.posargs else COVERED
    pytest = (PYTHON, "-m", "pytest", "--numprocesses=auto", "--dist=worksteal", "--cov", "--cov-report=term")
    session.run(*pytest, *chosen, external=True)


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
