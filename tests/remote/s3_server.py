"""An S3 server of moto in a process of its own: prints its port, and ends with its input.

``python -m tests.remote.s3_server BUCKET``
"""

from __future__ import annotations

import logging
import sys

import boto3
from moto.server import ThreadedMotoServer


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="a key",
        aws_secret_access_key="a secret",
    )
    client.create_bucket(Bucket=sys.argv[1])
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
