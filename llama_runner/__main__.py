"""``python -m llama_runner``: the same as ``llama-runner``."""

import sys


def main() -> int:
    """Run the command line."""
    try:  # an interrupt before the command line can report it; importing this module itself costs nothing
        from llama_runner.system.sys_path import remove_working_directory_from_path  # noqa: PLC0415

        remove_working_directory_from_path()
        from llama_runner.cli.entry_point import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
