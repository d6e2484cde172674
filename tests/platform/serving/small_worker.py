"""A worker for tests of the processes: HTTP by hand, and a model that is one word.

    python -m tests.platform.serving.small_worker REGISTRY

The word of the version labelled "stable" is what it answers with, and how it behaves:

    broken    loading it fails with an error        crashing  loading it ends the process
    endless   loading it never ends                 mortal    worker 0 ends as soon as it serves
    deaf      it does not drain                     waiting   loads when REGISTRY/release is there
    hesitant  worker 1 serves when REGISTRY/release is there

"broken" is heeded under every label.  Each load adds a line to REGISTRY/loads: the generation.
GET / answers at once, GET /slow a second later.
"""

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from mlplatform.errors import DataCorrupt
from mlplatform.serving.worker_process import Worker, run

ROOT = Path(sys.argv[1])


def load(worker: Worker) -> dict[str, Any]:
    with (ROOT / "loads").open("a") as stream:
        stream.write(f"{worker.assignment.generation}\n")
    words = {}
    for label, number in worker.assignment.versions.items():
        with worker.loading(number):
            words[label] = (ROOT / "versions" / str(number) / "model" / "weights").read_text()
            if words[label] == "broken":
                raise DataCorrupt(f"version {number}: its weights\nare broken")
    word = words["stable"]
    if word == "crashing":
        os._exit(7)
    while word == "endless" or (word == "waiting" and not (ROOT / "release").exists()):
        time.sleep(0.02)
    return {
        "word": word,
        "versions": worker.assignment.versions,
        "low": os.sched_getscheduler(threading.get_native_id()) == os.SCHED_IDLE,
        "one_thread": os.environ["OMP_NUM_THREADS"] == "1",
        "grpc": grpc.getsockname() if (grpc := worker.grpc_socket()) else None,
    }


async def serve(loaded: dict[str, Any], worker: Worker) -> None:
    open_connections: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_connections.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET /slow"):
                    await asyncio.sleep(1)
                closing = worker.stopping.is_set()
                body = json.dumps(loaded | {"pid": os.getpid()}).encode()
                more = "Connection: close\r\n" if closing else ""
                writer.write(
                    f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body
                )
                await writer.drain()
                if closing:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            open_connections.discard(writer)
            writer.close()

    hesitant = loaded["word"] == "hesitant" and worker.assignment.worker == 1
    while hesitant and not (ROOT / "release").exists():
        await asyncio.sleep(0.02)
    server = await asyncio.start_server(answer, sock=worker.http_socket())
    worker.serving()
    if loaded["word"] == "mortal" and worker.assignment.worker == 0:
        os._exit(3)
    await worker.stopping.wait()
    server.close()
    if loaded["word"] == "deaf":
        await asyncio.sleep(3600)
    end = time.monotonic() + worker.assignment.drain_s
    while open_connections and time.monotonic() < end:
        await asyncio.sleep(0.01)
    for writer in open_connections:
        writer.close()


if __name__ == "__main__":
    run(load, serve)
