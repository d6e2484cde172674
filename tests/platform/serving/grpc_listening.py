"""A gRPC server in a thread of its own, so that a test is the blocking client that most have."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from mlplatform.serving.doors import Doors
from mlplatform.serving.grpc_methods import Methods
from mlplatform.serving.grpc_server import serve
from mlplatform.serving.listening import listen, port_of

LIMIT_S = 60


@contextmanager
def channel_to(services: Sequence[Methods]) -> Iterator[grpc.Channel]:
    """A channel to a server with these methods, on a free port."""
    loop, stopping = asyncio.new_event_loop(), asyncio.Event()
    opened = threading.Event()
    with listen(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{port_of(listener)}"
        serving = serve(listener, services, Doors(), stopping, 0.0, ready=opened.set)
        thread = threading.Thread(target=loop.run_until_complete, args=[serving])
        thread.start()
        try:
            assert opened.wait(LIMIT_S)
            with grpc.insecure_channel(address) as channel:
                yield channel
        finally:
            loop.call_soon_threadsafe(stopping.set)
            thread.join(LIMIT_S)
            loop.close()
