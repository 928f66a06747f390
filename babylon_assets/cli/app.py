"""The command `babylon`: its commands, and how an error becomes a message and an exit code.

    0    done
    1    failed, or a check found something: a person must act
    2    the command was typed wrongly
    75   failed for now (EX_TEMPFAIL): the same command may succeed later

What a command does is in `babylon_assets.cli`, one module per group of commands. Dagster, torch and ART are
imported by the commands that use them, so that the others answer at once.
"""

from __future__ import annotations

import inspect
import io
import sys
import traceback
from collections.abc import Sequence
from typing import Any, get_type_hints

import click
import typer
from typer.core import TyperArgument, TyperGroup
from typer.models import ArgumentInfo

from babylon_assets.cli import (
    backfill,
    chain,
    compare,
    demo,
    doctor,
    export,
    import_file,
    list_scores,
    list_windows,
    promote,
    serve,
    serve_site,
    simulate,
    train,
    up,
    write_report,
)
from babylon_assets.cli.terminal import bold, errors
from babylon_assets.config.settings import Settings, load_settings, unknown_variables
from babylon_assets.domain.errors import BabylonError, MissingDependency, SettingsError, TransientError
from babylon_assets.ledger.sqlstates import named_error

EXIT_FAILED, EXIT_TRY_LATER, EXIT_INTERRUPTED = 1, 75, 130


class ErrorsAsExitCodes(TyperGroup):
    """Prints an error that the product names as one message, without a traceback, and exits with its code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in self.commands.values():
            explain_arguments(command)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            for variable, remedy in unknown_variables():
                errors.print(f"warning: {variable}; {remedy}", style="yellow", highlight=False, soft_wrap=True)
            return super().invoke(ctx)
        except (click.ClickException, typer.Exit, typer.Abort):
            raise
        except BabylonError as error:
            tell(error)
            raise typer.Exit(EXIT_TRY_LATER if isinstance(error, TransientError) else EXIT_FAILED) from error
        except ModuleNotFoundError as error:
            tell(MissingDependency.of(error))
            raise typer.Exit(EXIT_FAILED) from error
        except KeyboardInterrupt:
            # CPython remembers one that came up through an exec of source text, as many an import makes one, and would
            # end by the signal in place of our code; the next exec makes it forget.
            exec("")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Exception as error:
            named = named_error(error)
            if named is None:  # a fault of the program: with its place, and with no text in it that acts
                errors.print(traceback.format_exc(), highlight=False, soft_wrap=True)
                raise typer.Exit(EXIT_FAILED) from error
            tell(named)
            raise typer.Exit(EXIT_TRY_LATER if isinstance(named, TransientError) else EXIT_FAILED) from error


def explain_arguments(command: click.Command) -> None:
    """Give the arguments of a command the help that was declared for them.

    typer 0.25 sets it before it calls click's constructor, and click 8.5 has a `help` of its own there, which is None.
    """
    silent = [
        parameter for parameter in command.params if isinstance(parameter, TyperArgument) and parameter.help is None
    ]
    if silent and command.callback is not None:
        hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
        for argument in silent:
            declared = getattr(hints.get(argument.name or ""), "__metadata__", ())
            argument.help = next((info.help for info in declared if isinstance(info, ArgumentInfo)), None)


app = typer.Typer(
    cls=ErrorsAsExitCodes,
    name="babylon",
    help="Turns every closed window of what agents did into a better agent.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(up.up)
app.command()(simulate.simulate)
app.command()(serve.serve)
app.command("site")(serve_site.site)
app.command()(list_windows.migrate)
app.command("windows")(list_windows.list_all)
app.command("scores")(list_scores.list_scores)
app.command()(train.train)
app.command()(backfill.backfill)
app.command()(list_windows.status)
app.command()(chain.chains)
app.command()(chain.lineage)
app.command()(chain.reproduce)
app.command("replay", hidden=True)(chain.reproduce)
app.command()(chain.prune)
app.command()(chain.forget)
app.command()(promote.evaluate)
app.command()(compare.compare)
app.command()(promote.promote)
app.command()(promote.rollback)
app.command("promotions")(promote.list_promotions)
app.command()(export.export)
app.command("import")(import_file.import_file)
app.command()(doctor.doctor)
app.command()(write_report.report)


def tell(error: BabylonError) -> None:
    """The error as one message on standard error."""
    errors.print(bold("error:", "bold red"), str(error), highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Without arguments, MODE and WINDOW_ID of the earlier trainer say what to do."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no letter for a text shows its number
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        given = given or arguments_of_mode(load_settings())
    except SettingsError as error:
        tell(error)
        sys.exit(EXIT_FAILED)
    app(args=given, prog_name="babylon")


def arguments_of_mode(settings: Settings) -> list[str]:
    """What the earlier trainer's MODE and WINDOW_ID mean as arguments; none when MODE is not set."""
    if settings.mode == "list":
        return ["windows"]
    if settings.mode == "continuous":
        return ["train", "--follow"]
    if settings.mode == "single":
        if settings.window_id is None:
            raise SettingsError("MODE is 'single' and WINDOW_ID is not set; set WINDOW_ID to the window to train")
        return ["train", settings.window_id]
    return []
