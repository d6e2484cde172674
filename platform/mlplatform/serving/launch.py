"""A whole server in one call: the supervisor, its signals, and the administrator's door.

Enters: settings.  Leaves: when SIGTERM or SIGINT came, and every worker has finished what it had.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

from mlplatform.serving.listening import Address
from mlplatform.serving.supervisor import Settings, Supervisor


def serve(
    settings: Settings,
    admin: Address | None = None,
    opened: Callable[[Supervisor, int | None], None] = lambda supervisor, port: None,
) -> None:
    """Serve until a signal.

    Args:
        admin: where the administrator's door is, if the environment has a token for it.
        opened: called when the sockets are open, with the supervisor and the door's port.  Nothing
            is served yet: what connects waits for the first generation.

    Raises:
        FailedPrecondition: an address is taken, or what is to be served cannot be.
        InvalidArgument: the administrator's token is too short.
        NotFound: no version has the first label.
        PlatformError: the registry cannot be read.
    """
    asyncio.run(_serve(settings, admin, opened))


async def _serve(
    settings: Settings,
    admin: Address | None,
    opened: Callable[[Supervisor, int | None], None],
) -> None:
    supervisor = Supervisor(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    async with AsyncExitStack() as stack:
        port = None
        if admin is not None:
            from mlplatform.serving.admin import admin_door, admin_token  # 40 MB

            if (token := admin_token()) is not None:
                port = await stack.enter_async_context(admin_door(supervisor, admin, token))
        opened(supervisor, port)
        await supervisor.run()
