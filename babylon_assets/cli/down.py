"""`babylon down`: stops what stays up between commands, the embedded PostgreSQL, and `babylon up` before it."""

from __future__ import annotations

import os
import signal

from babylon_assets.cli.terminal import output, tell_step
from babylon_assets.config.settings import load_settings
from babylon_assets.domain.errors import PermanentError

#: `babylon up` ends its children in less.
UP_SECONDS = 20.0


def down() -> None:
    """Stop the embedded PostgreSQL of this home, and `babylon up` if it runs.

    The data stays. The next command starts the server again. Where DATABASE_URL is set, only `babylon up` is stopped.

    Example: [bold]babylon down[/]
    """
    from babylon_assets.ledger import embedded_postgres
    from babylon_assets.ledger.database import embedded_data
    from babylon_assets.orchestration.up_lock import serving_process, wait_until_free

    settings = load_settings()
    if (process := serving_process(settings.home)) is not None:
        tell_step(f"stopping `babylon up`, process {process}")
        os.kill(process, signal.SIGTERM)
        if not wait_until_free(settings.home, UP_SECONDS):
            raise PermanentError(f"`babylon up`, process {process}, does not end; end it and type babylon down again")
        output.print("`babylon up` is stopped")
    if settings.database.url is not None:
        output.print("DATABASE_URL is set: its server is yours to stop")
        return
    data = embedded_data(settings)
    if not data.exists():
        output.print(f"there is no home with a PostgreSQL in {settings.home}, so none runs", soft_wrap=True)
        return
    stopped = embedded_postgres.stop(data)
    output.print(f"the PostgreSQL in {data} is stopped" if stopped else f"no PostgreSQL runs in {data}", soft_wrap=True)
