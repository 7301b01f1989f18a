"""Loaded by the Python of ``scripts/test_windows.sh`` only: what Wine 8 does otherwise than Windows.

It does not say which process listens on a port. It makes no symbolic links, and says that it has made them; Windows
refuses them to users who are no administrators. It does not say where a path of more than 260 characters leads.
"""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import ntpath

    import psutil

    MORE_DATA = 234
    _final = ntpath._getfinalpathname

    def _unknown(self: psutil.Process, kind: str = "inet") -> None:
        raise psutil.AccessDenied(self.pid)

    def _refused(source: object, target: object, target_is_directory: bool = False, *, dir_fd: object = None) -> None:
        raise OSError(None, "A required privilege is not held by the client", source, 1314, target)

    def _final_path(path: str) -> str:
        try:
            return str(_final(path))
        except OSError as error:
            if error.winerror != MORE_DATA:
                raise
            return "\\\\?\\" + ntpath.abspath(path)

    psutil.Process.net_connections = _unknown  # type: ignore[assignment,method-assign]
    os.symlink = _refused
    ntpath._getfinalpathname = _final_path
