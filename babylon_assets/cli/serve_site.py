"""`babylon site`: the local site alone, without Dagster's UI."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from babylon_assets.cli.list_windows import opened
from babylon_assets.cli.terminal import bold, output, waiting
from babylon_assets.config.settings import load_settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.site_links import SITE

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def site(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on loopback; 0 for one that is free.")] = 3080,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser as well.")] = False,
) -> None:
    """Show checkpoints, samples, agents and comparisons as pages on loopback, until Ctrl-C.

    [bold]babylon up[/] has the same pages beside Dagster's UI, at [bold]/site/[/]. They only read. Whoever asks needs
    the keys of DAGSTER_KEYS, if there are any.

    Example: [bold]babylon site --open[/]
    """
    settings = load_settings()
    with waiting("starting the site"):
        database = opened(settings)
        from babylon_assets.orchestration.ui_guard import UiGuard
        from babylon_assets.site.application import make_site

        listening = _listen(port)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}{SITE}/"
        app = UiGuard(make_site(settings, lambda: database), settings.dagster_keys, settings.dagster_hosts)
    output.print("site:", bold(url), "  stop: Ctrl-C")
    if show:
        typer.launch(url)
    _serve(app, listening)
    output.print("stopped")


def _serve(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, which end it without a traceback."""
    import uvicorn

    class Server(uvicorn.Server):
        """Leaves the signals to the loop: uvicorn would raise them again once all is closed."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, setattr, self, "should_exit", True)
            yield

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, proxy_headers=False, lifespan="off", timeout_graceful_shutdown=5
    )
    Server(config).run([listening])


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise PermanentError(
            f"the site cannot listen on port {port} ({error.strerror}); stop what listens there, "
            f"or add --port {port + 1}"
        ) from None
    return listening
