"""``python -m llama_runner.run_server``: the ``run`` command under the name that users were promised."""

import sys

from llama_runner.system.sys_path import remove_working_directory_from_path


def main() -> int:
    """Run the command."""
    remove_working_directory_from_path()
    try:
        from llama_runner.cli.main import main as call  # noqa: PLC0415 - not from the working directory
        from llama_runner.cli.run_cmd import run  # noqa: PLC0415
    except KeyboardInterrupt:  # before the command line can report it
        return 130
    return call(command=run, name="python -m llama_runner.run_server")


if __name__ == "__main__":
    sys.exit(main())
