"""config.json of a model is read by one module; others get what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from llama_runner.demo import MODEL_DIRECTORY

if TYPE_CHECKING:
    from pathlib import Path

READER = "convert/model_directory.py"
DIGESTS = {"store/digest_cache.py", "store/model_digest.py"}
"""Every file of a model is part of its digest, whatever it is called."""

WATCH = """
import json, os, sys
readers = []

def watch(event, arguments):
    if event != "open" or not str(arguments[0]).endswith(os.sep + "config.json"):
        return
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename.replace(os.sep, "/")
        if "/llama_runner/" in path and not path.endswith("system/files.py"):
            readers.append(path.rpartition("/llama_runner/")[2])
            return
        frame = frame.f_back

sys.addaudithook(watch)
from llama_runner import Runner
from llama_runner.request.model_inspection import inspect
root, model = sys.argv[1:]
Runner(root).plan(model)
first = list(readers)
inspect(model)
print(json.dumps([first, readers]))
"""


def test_12_02_config_json_is_read_by_one_module_for_a_plan_and_for_inspect(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / "model")
    command = [sys.executable, "-c", WATCH, str(tmp_path / "root"), str(model)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    plan, both = json.loads(done.stdout)
    assert set(both) - DIGESTS == {READER}
    assert READER in plan
