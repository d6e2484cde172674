"""A gRPC server of one call, in a process of its own, that drains at SIGTERM.

    python -m tests.platform.serving.small_grpc DESCRIPTOR

takes connections of that inherited socket, and prints a line once it does.
"""

import asyncio
import signal
import socket
import sys
from typing import Any

import uvloop
from google.protobuf.wrappers_pb2 import StringValue

from mlplatform.serving.doors import Doors
from mlplatform.serving.grpc_methods import service, unary
from mlplatform.serving.grpc_server import serve

METHOD = "/test.Words/Echo"


async def echo(request: StringValue, context: Any) -> StringValue:
    await asyncio.sleep(0.001)
    return request


async def main(listener: socket.socket) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    methods = service("test.Words", {"Echo": unary(echo, StringValue)})
    await serve(
        listener, [methods], Doors(), stopping, 10.0,
        ready=lambda: print("serving", flush=True),
    )  # fmt: skip


if __name__ == "__main__":
    uvloop.run(main(socket.socket(fileno=int(sys.argv[1]))))
