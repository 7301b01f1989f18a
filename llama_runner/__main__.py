"""``python -m llama_runner``: the same as ``llama-runner``."""

import sys

from llama_runner.system.python_path import remove_working_directory_from_path


def main() -> int:
    """Run the command line."""
    remove_working_directory_from_path()
    try:
        from llama_runner.cli.main import main as run  # noqa: PLC0415 - importing this module costs nothing
    except KeyboardInterrupt:  # before the command line can report it
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
