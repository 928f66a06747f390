"""`babylon serve`: the gateway as a process of its own, and the keys to it."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from babylon_assets.cli.terminal import bold, output, show_log, waiting
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.errors import DatabaseUnavailable, SettingsError

if TYPE_CHECKING:
    import asyncio

    from babylon_assets.serving.answers import Source

_log = logging.getLogger(__name__)


def serve(
    new_key: Annotated[
        str | None, typer.Option("--new-key", metavar="NAME", help="Print a new key and its hash, and end.")
    ] = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A socket that the parent has bound.")] = None,
) -> None:
    """Answer as OpenAI's API does, with the promoted policy, and record every answer.

    Any OpenAI client works by changing its base URL to [bold]http://127.0.0.1:8000/v1[/]; the model is
    [bold]babylon-agent[/] for the promoted policy, [bold]babylon-agent@7[/], [bold]babylon-agent@2026-11-05T14:00[/] or
    [bold]base[/].

    Example: [bold]babylon serve[/]   (a key for others: [bold]babylon serve --new-key game[/])
    """
    settings = load_settings()
    if new_key is not None:
        _print_key(new_key)
        return
    with waiting("starting the gateway"):
        from babylon_assets.serving.awaited_database import AwaitedDatabase
        from babylon_assets.serving.http.server import listen
        from babylon_assets.serving.http.server import serve as serve_until_stopped

        show_log(settings.log_level)
        listening = listen(settings.gateway) if fd is None else socket.socket(fileno=fd)
        database = AwaitedDatabase(settings)
        try:
            database.open()
        except DatabaseUnavailable as error:
            _log.warning("starting without PostgreSQL, which is looked for twice a second: %s", error)
    host, port = listening.getsockname()[:2]
    output.print("gateway:", bold(f"http://{host}:{port}/v1"), "  stop: Ctrl-C")
    serve_until_stopped(
        settings.gateway,
        settings.model_name,
        database,
        lambda loop: make_source(settings, loop),
        listening,
        settings.home / "spool",
    )
    output.print("stopped")


def _print_key(name: str) -> None:
    from babylon_assets.config.values import parse_hashed_keys
    from babylon_assets.serving.http.keys import new_key as make_key

    key, digest = make_key()
    try:
        parse_hashed_keys(f"{name}:{digest}")
    except ValueError:
        raise SettingsError(f"{name!r} cannot name a key; use letters, digits, '.', '_' and '-'") from None
    output.print("key, shown this once:", bold(key), soft_wrap=True)
    output.print("add to GATEWAY_KEYS:", bold(f"{name}:{digest}"), soft_wrap=True)


def make_source(settings: Settings, loop: asyncio.AbstractEventLoop) -> Source:
    """Whoever answers behind the gateway, as the settings say.

    Raises:
        SettingsError: a server is to answer and is not named.
    """
    from babylon_assets.config.settings import prepare_libraries
    from babylon_assets.training.backends.registry import choose_backend

    prepare_libraries(settings)
    engine: str = settings.gateway.engine
    if engine == "auto":
        engine = choose_backend(settings).backend.capabilities.gateway_engine
    return _embedded(settings, loop) if engine == "embedded" else _upstream(settings, engine)


def _embedded(settings: Settings, loop: asyncio.AbstractEventLoop) -> Source:
    from babylon_assets.serving.engine.engine import Library
    from babylon_assets.serving.engine.scheduler import Scheduler
    from babylon_assets.training.capacity import choose_threads
    from babylon_assets.training.roots import base_model_of

    logging.getLogger("transformers").setLevel(logging.ERROR)
    base = base_model_of(settings)
    library = Library(Path(base), settings.gateway.policies)
    library.weights(None)
    gateway, threads = settings.gateway, choose_threads(settings, base)
    cache_bytes = None if gateway.cache_mb is None else gateway.cache_mb * 2**20
    return Scheduler(library, loop, width=gateway.batch, queue=gateway.queue, threads=threads, cache_bytes=cache_bytes)


def _upstream(settings: Settings, kind: Any) -> Source:
    from babylon_assets.serving.upstream import Upstream
    from babylon_assets.training.roots import base_model_of

    hosted = kind == "wandb"
    url = settings.gateway.upstream_url or (settings.serverless.url if hosted else None)
    if url is None:
        raise SettingsError(
            f"GATEWAY_ENGINE is {kind} and GATEWAY_UPSTREAM_URL is not set; set it to that server's URL"
        )
    key = settings.gateway.upstream_key or (settings.training.wandb_api_key if hosted else None) or "none-needed"
    return Upstream(
        url,
        key,
        kind,
        base_model_of(settings) if hosted else "",
        seconds=settings.gateway.upstream_seconds,
        most=settings.gateway.batch + settings.gateway.queue,
    )
