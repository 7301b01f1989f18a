"""Runs the official converter over all cases, in the reference environment, and reads the digests of its output."""

from __future__ import annotations

import json
import subprocess
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tests.convert.cases import CASES
from tests.convert.checkpoints import DATA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.convert.cases import Case

FAMILIES = sorted(path.stem for path in (Path(__file__).parent / "families").glob("[a-z]*.py"))
FIRST = "first"  # the cases of `tests.convert.cases`, Llama and BERT with all that is in metadata and vocabularies
GROUPS = [FIRST, *FAMILIES]
PROJECTORS = "projectors"  # the cases of `tests.convert.projectors`, of which not the model is made


def cases_of(group: str) -> dict[str, Case]:
    """The cases of a family, or the first ones."""
    if group == FIRST:
        return CASES
    package = "tests.convert" if group == PROJECTORS else "tests.convert.families"
    cases: dict[str, Case] = import_module(f"{package}.{group}").CASES
    return cases


def goldens_of(group: str) -> Path:
    """The file with the digests of the official output."""
    return DATA / "official.json" if group == FIRST else DATA / "official" / f"{group}.json"


def run_official(
    python: Path, tree: Path, folder: Path, cases: Mapping[str, Case] = CASES, *, keep: bool = False
) -> dict[str, str]:
    """The SHA-256 of the official output per ``case/outtype``, or the error, which holds a colon."""
    jobs, keys = [], {}
    for title, case in cases.items():
        directory = folder / title / case.name
        case.build(directory)
        for outtype in case.outtypes:
            destination = folder / title / f"{outtype}.gguf"
            keys[str(destination)] = f"{title}/{outtype}"
            jobs.append({
                "directory": str(directory), "destination": str(destination), "outtype": outtype, "pre": case.pre,
                "options": case.options,
                "projector": case.projector,
            })  # fmt: skip
    driver = DATA / "official_driver.py"
    environment = {"PYTHONPATH": str(tree / "gguf-py"), "HF_HUB_OFFLINE": "1", "PATH": "", "HOME": str(folder)}
    done = subprocess.run(
        [python, driver, tree], input=json.dumps(jobs), capture_output=True, text=True, check=False, env=environment
    )
    (folder / "official.log").write_text(done.stderr, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    if not keep:
        for made in keys:
            Path(made).unlink(missing_ok=True)
    return {keys[made]: result for made, result in json.loads(done.stdout).items()}


def unconfirmed(group: str) -> Path:
    """The file with the digests of our own output, of a family that was never compared with the official script."""
    return DATA / "unconfirmed" / f"{group}.json"


@cache
def recorded(group: str) -> dict[str, str]:
    """The digests of a group per ``case/outtype``: the official ones, or our own until there are any."""
    path = goldens_of(group) if goldens_of(group).is_file() else unconfirmed(group)
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def is_confirmed(group: str) -> bool:
    """Whether the digests of a group are those of the official output."""
    return goldens_of(group).is_file()


def record_our_own(group: str) -> None:
    """Write down what our own converter makes of a group, until the official script can be run."""
    from llama_runner.convert import convert

    digests = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, case in cases_of(group).items():
            directory = Path(folder) / title / case.name
            case.build(directory)
            for outtype in case.outtypes:
                made = convert(directory, Path(folder) / title / f"{outtype}.gguf", name=case.name, outtype=outtype)  # type: ignore[arg-type]
                assert made.sha256 is not None, "it is small"
                digests[f"{title}/{outtype}"] = made.sha256
    write(unconfirmed(group), digests)


def write(path: Path, digests: Mapping[str, str]) -> None:
    """Write a file of digests."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")
