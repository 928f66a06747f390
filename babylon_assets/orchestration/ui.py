"""Dagster's webserver with the site beside it and the guard before both.

Run as a program, it takes the options of `dagster-webserver`.
"""

from __future__ import annotations

from typing import Any

import dagster_webserver.cli

from babylon_assets.config.settings import load_settings
from babylon_assets.ledger.database import open_database
from babylon_assets.orchestration.ui_guard import UiGuard
from babylon_assets.site.application import SiteBeside, make_site

_cli: Any = dagster_webserver.cli
_make_app = _cli.create_app_from_workspace_process_context


def _guarded_app(*arguments: Any, **options: Any) -> UiGuard:
    settings = load_settings()
    site = make_site(settings, lambda: open_database(settings), beside_dagster=True)
    pages = SiteBeside(_make_app(*arguments, **options), site)
    return UiGuard(pages, settings.dagster_keys, settings.dagster_hosts)


def main() -> None:
    """Serve the UI until a signal ends it."""
    _cli.create_app_from_workspace_process_context = _guarded_app
    _cli.main()


if __name__ == "__main__":
    main()
