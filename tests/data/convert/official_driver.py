"""Runs the official converter for a list of jobs in one process, since importing torch is what takes long.

    python official_driver.py TREE < jobs.json

A job is {"directory", "destination", "outtype", "pre"}, "options" of the script, "vocab" where nothing but that is
wanted, and "projector" where that is wanted; "pre" names the pre-tokenizer for vocabularies that the script has never
seen, "-" leaves it to recognise one. Prints {"destination": sha256 or error} as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
import unittest.mock
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # the tree is an artifact with a digest
    import google.protobuf  # type: ignore[import-not-found, import-untyped, unused-ignore]

    tree = Path(sys.argv[1])
    sys.path[:0] = [str(tree), str(tree / "gguf-py")]
    # sentencepiece's own messages ask for a later protobuf than the converter's requirements allow, and work with it
    if find_spec("google.protobuf.runtime_version") is None:
        sys.modules["google.protobuf.runtime_version"] = google.protobuf.runtime_version = unittest.mock.MagicMock()
    import convert_hf_to_gguf as script  # type: ignore[import-not-found]
    from conversion.base import TextModel  # type: ignore[import-not-found]

    recognise = TextModel.get_vocab_base_pre
    results, undo = {}, []
    for job in json.load(sys.stdin):
        pre = job["pre"]
        TextModel.get_vocab_base_pre = recognise if pre == "-" else lambda *_, pre=pre: pre
        arguments = [job["directory"], "--outfile", job["destination"], "--outtype", job["outtype"]]
        arguments += job.get("options", [])
        if "--no-mtp" in arguments:  # the script keeps it for the next job
            kind = json.loads(Path(job["directory"], "config.json").read_text(encoding="utf-8"))["architectures"][0]
            from conversion import get_model_class  # type: ignore[import-not-found] # the tree's

            undo.append(get_model_class(kind))
        else:
            while undo:
                undo.pop().no_mtp = False
        arguments += ["--vocab-only"] * job.get("vocab", False)
        arguments += ["--mmproj"] * job.get("projector", False)
        sys.argv = [str(tree / "convert_hf_to_gguf.py"), *arguments]
        try:
            script.main()
            results[job["destination"]] = hashlib.sha256(Path(job["destination"]).read_bytes()).hexdigest()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported as it is
            traceback.print_exc()
            results[job["destination"]] = f"{type(error).__name__}: {error}"
    json.dump(results, sys.stdout)
