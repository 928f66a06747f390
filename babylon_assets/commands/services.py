"""`babylon up`: the Dagster UI, its daemon and the gateway, as child processes of this command."""

from __future__ import annotations

from babylon_assets.commands.terminal import output
from babylon_assets.settings import load_settings


def up() -> None:
    """Serve the Dagster UI on loopback, and the gateway, until Ctrl-C.

    Starts the embedded PostgreSQL if none is set, brings our tables up to date, fails runs that a crash left behind,
    and keeps dagster-webserver, dagster-daemon and the gateway ([bold]babylon serve[/]) running. The database stays up
    afterwards.

    Example: [bold]babylon up[/]   (another port: [bold]DAGSTER_PORT=3001 babylon up[/])
    """
    settings = load_settings()
    from babylon_assets.automation.instance import dagster_home, fail_orphaned_runs, open_instance
    from babylon_assets.automation.services import Services, only_one
    from babylon_assets.settings import subprocess_environment
    from babylon_assets.store.database import migrate, open_database

    with only_one(settings.home):
        database = open_database(settings)
        migrate(database)
        with open_instance(settings, database) as instance:
            for run_id in fail_orphaned_runs(instance):
                output.print(f"failed the run {run_id}, whose process was gone")
        environment = subprocess_environment(settings, database.dagster_url)
        with Services(dagster_home(settings), settings.dagster_port, environment, settings.gateway_port) as services:
            services.wait_until_ready()
            output.print(f"Dagster UI: [bold]{services.url}[/]   logs: {services.logs}   stop: Ctrl-C")
            output.print(f"gateway: [bold]http://{settings.gateway_host}:{settings.gateway_port}/v1[/]")
            services.wait()
    output.print("stopped")
