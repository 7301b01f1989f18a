"""An SFTP server of paramiko over a directory; every client with a key may log in.

It has what a client needs to read, write and rename files.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import paramiko


class _Login(paramiko.ServerInterface):  # type: ignore[misc]  # of a library without types
    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> Any:
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> Any:
        return paramiko.OPEN_SUCCEEDED


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]  # as above
    def stat(self, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    lstat = stat

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> Any:
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        file = os.fdopen(descriptor, "wb" if flags & os.O_WRONLY else "r+b" if flags & os.O_RDWR else "rb")
        handle = paramiko.SFTPHandle(flags)
        handle.filename, handle.readfile, handle.writefile = path, file, file
        return handle

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> Any:
        try:
            Path(path).mkdir()
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        return paramiko.SFTP_OK

    def posix_rename(self, oldpath: str, newpath: str) -> Any:
        try:
            Path(oldpath).replace(newpath)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        return paramiko.SFTP_OK


class SftpServer:
    """Serves the file system of this machine on loopback. ``key`` is the host's."""

    def __init__(self) -> None:
        self.key = paramiko.ECDSAKey.generate()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._transports: list[paramiko.Transport] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            transport = paramiko.Transport(client)
            transport.add_server_key(self.key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files)
            self._transports.append(transport)
            transport.start_server(event=threading.Event(), server=_Login())

    def write_user(self, home: Path, *, knows_host: bool) -> None:
        """Give a user a key of their own, and the key of the host if they know it."""
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        paramiko.ECDSAKey.generate().write_private_key_file(str(home / ".ssh" / "id_ecdsa"))
        known = f"[127.0.0.1]:{self.port} {self.key.get_name()} {self.key.get_base64()}\n" if knows_host else ""
        (home / ".ssh" / "known_hosts").write_text(known)

    def close(self) -> None:
        self._socket.close()
        for transport in self._transports:
            transport.close()
