"""Fuzz targets: each module with a function ``run(seconds, seed)`` generates hostile input and reports findings.

A finding is any outcome other than success or a ``LlamaRunnerError``: an untyped exception, a hang, memory beyond a
limit, a control character of the input in what is printed. `scripts/fuzz.py` runs the targets for a time;
`test_fuzz.py` runs each of them for a few hundred cases and replays the findings that are kept in tests/data/fuzz.
"""
