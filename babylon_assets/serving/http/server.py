"""A process that serves the gateway: its socket, its parts in the order in which they need each other, its end.

It listens at once and says that it is starting until the policy is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from babylon_assets.config.gateway import GatewaySettings
from babylon_assets.domain.errors import PermanentError, SettingsError, TransientError
from babylon_assets.serving.answers import Source
from babylon_assets.serving.awaited_database import Ledger
from babylon_assets.serving.http.accepted_request import Parts
from babylon_assets.serving.http.connections import (
    Connection,
    ConnectionLimits,
    Connections,
    most_connections,
    raise_open_files,
)
from babylon_assets.serving.http.gateway import Gateway
from babylon_assets.serving.http.keys import Access
from babylon_assets.serving.http.metrics import Metrics
from babylon_assets.serving.http.web_pages import WebPages
from babylon_assets.serving.model_names import ModelNames
from babylon_assets.serving.policy_registry import Directory
from babylon_assets.serving.recorder import Recorder
from babylon_assets.serving.served_pointer import PointerFile

#: The longest request: the texts of far more tokens than a model reads.
MOST_BODY_BYTES = 1_000_000
#: How long answers that are under way may take when the process is asked to end.
GRACE_SECONDS = 4
MOST_SECONDS = 8.0
#: How often it is looked whether a thread has failed that the gateway cannot do without.
LOOK_SECONDS = 0.1
#: Python's own 5 ms are a long wait for the engine, which lets go of the lock some hundred times per step.
SWITCH_SECONDS = 0.0005
#: uvicorn ticks ten times a second.
TICKS_A_LOOK = 10
#: The file beside the spool that names the policy that was served last.
POINTER = "served.json"

_log = logging.getLogger(__name__)

MakeSource = Callable[[asyncio.AbstractEventLoop], Source]


def listen(settings: GatewaySettings) -> socket.socket:
    """A socket at the settings' address.

    Raises:
        SettingsError: the address can be reached from elsewhere and there are no keys.
        PermanentError: the port is taken.
    """
    host, port = settings.host, settings.port
    if not settings.keys and not _is_loopback(host):
        raise SettingsError(
            f"GATEWAY_HOST is {host}, which others can reach, and there are no keys; "
            "make one with babylon serve --new-key NAME and set GATEWAY_KEYS, or listen on 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise PermanentError(
            f"the gateway cannot listen on {host} port {port} ({error.strerror}); stop what listens there or set "
            f"GATEWAY_PORT, such as GATEWAY_PORT={port + 1}"
        ) from None
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(
    settings: GatewaySettings,
    model: str,
    database: Ledger,
    make_source: MakeSource,
    listening: socket.socket,
    spool: Path,
) -> None:
    """Serve until SIGINT or SIGTERM, or until a thread fails that this cannot do without.

    Args:
        model: the name that the policies are asked by, which is that of the chain.
        make_source: makes whoever answers, given the event loop; may take long, and is called on another thread.
        spool: folder of records that wait for the database; beside it the policy that is served is noted.

    Raises:
        BabylonError: whoever answers could not be made.
        TransientError: a thread failed.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    raise_open_files()
    gateway = make_gateway(settings)
    server = uvicorn_server(gateway)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(
            run(gateway, server, partial(assemble, gateway, settings, model, database, spool), make_source, listening)
        )


def make_gateway(settings: GatewaySettings) -> Gateway:
    """A gateway without its parts, which takes as many connections as this process may have files open."""
    total = most_connections()
    limits = ConnectionLimits(MOST_BODY_BYTES, min(settings.address_connections, total), total)
    named = frozenset(settings.hosts) if settings.hosts or not settings.keys else None
    return Gateway(Connections(limits), WebPages(named, settings.origins))


def uvicorn_server(gateway: Gateway) -> Any:
    """The HTTP server of a gateway; setting its `should_exit` ends it."""
    import uvicorn

    class Server(uvicorn.Server):
        """Leaves the signals to `run`: uvicorn would raise them again before anything is closed."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def on_tick(self, counter: int) -> bool:
            if counter % TICKS_A_LOOK == 0:
                for connection in list(self.server_state.connections):
                    connection.look()  # type: ignore[union-attr]
            return await super().on_tick(counter)

    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a line per bad request would fill the disk
    config = uvicorn.Config(
        gateway.app,
        http=partial(Connection, gateway.connections),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=75,
        backlog=2048,
    )
    return Server(config)


async def run(
    gateway: Gateway,
    server: Any,
    make_parts: Callable[[Source], Parts],
    make_source: MakeSource,
    listening: socket.socket,
) -> None:
    """Listen, make the parts, serve until the server is told to exit, a thread fails or, in a main thread, a signal.

    Raises:
        TransientError: a thread failed; the next gateway may do better.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _stop, server)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    looking = asyncio.create_task(_stop_if_failed(gateway, server))
    parts: Parts | None = None
    try:
        source = await loop.run_in_executor(None, make_source, loop)
        parts = gateway.parts = make_parts(source)
        parts.directory.start()
        gc.freeze()  # to search all that is here to stay for garbage holds up every answer: once for 85 ms
        await serving
    finally:
        server.should_exit = True
        await serving
        looking.cancel()
        if parts is not None:
            await loop.run_in_executor(None, dismantle, parts)
            gc.unfreeze()
        with contextlib.suppress(OSError):
            listening.close()
    if parts is not None and parts.failed is not None:
        raise TransientError(
            f"the gateway ended, for its thread {parts.failed} failed; read its log, and start it again"
        )


async def _stop_if_failed(gateway: Gateway, server: Any) -> None:
    """A gateway that hears nobody any more, or records nothing, is worse than none: the next one takes its place."""
    while gateway.parts is None or gateway.parts.failed is None:
        await asyncio.sleep(LOOK_SECONDS)
    _stop(server, os.EX_TEMPFAIL)


def _stop(server: Any, code: int = 0) -> None:
    """End as soon as all is closed, and at the latest after MOST_SECONDS: a model that is being loaded ends no sooner.

    What was recorded lies in the spool, where the next gateway finds it.

    Args:
        code: of the process, where it has to be ended.
    """
    server.should_exit = True
    if threading.current_thread() is threading.main_thread():
        timer = threading.Timer(MOST_SECONDS, _end_process, (code,))
        timer.daemon = True
        timer.start()


def _end_process(code: int) -> None:
    """End at once, with the sentence that whoever stopped it waits for."""
    with contextlib.suppress(OSError):  # who read it is gone
        os.write(2, b"stopped; what was recorded is kept\n")
    os._exit(code)


def assemble(
    gateway: Gateway, settings: GatewaySettings, model: str, database: Ledger, spool: Path, source: Source
) -> Parts:
    """The gateway's parts around whoever answers."""
    canary = (settings.canary_policy, settings.canary_share)
    directory = Directory(database, model, source, PointerFile(spool.with_name(POINTER), model), *canary)
    recorder = Recorder(database, spool) if settings.record else None
    return Parts(
        source=source,
        directory=directory,
        recorder=recorder,
        access=Access(settings.keys, settings.key_concurrency, settings.key_tokens_per_minute),
        answer_tokens=settings.answer_tokens,
        metrics=Metrics(source, directory, recorder, gateway.connections),
        model=model,
        names=ModelNames(model, settings.aliases, strict=settings.strict_names),
    )


def dismantle(parts: Parts) -> None:
    """End what `assemble` began, in the opposite order; what is recorded is written first."""
    parts.directory.close()
    parts.work.close()
    parts.source.close()
    if parts.recorder is not None:
        parts.recorder.close()
