"""The command `babylon`: its commands, and how an error becomes a message and an exit code.

    0    done
    1    failed, or a check found something: a person must act
    2    the command was typed wrongly, or names no window; a setting's text is not allowed
    75   failed for now (EX_TEMPFAIL): the same command may succeed later
    130  ended by Ctrl-C; 143 by SIGTERM

What a command does is in `babylon_assets.cli`, one module per group of commands. Dagster, torch and ART are
imported by the commands that use them, so that the others answer at once.
"""

from __future__ import annotations

import errno
import inspect
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import click
import typer
from click.exceptions import NoSuchCommand
from typer.core import TyperArgument, TyperGroup
from typer.models import ArgumentInfo

from babylon_assets.cli import (
    backfill,
    chain,
    compare,
    demo,
    doctor,
    down,
    export,
    import_file,
    list_scores,
    list_windows,
    promote,
    serve,
    serve_site,
    simulate,
    status,
    stopping,
    train,
    up,
    write_report,
)
from babylon_assets.cli.terminal import bold, errors, output
from babylon_assets.config.settings import Settings, load_settings, unknown_variables
from babylon_assets.domain.errors import (
    BabylonError,
    InvalidSetting,
    MissingDependency,
    NoWindow,
    PermanentError,
    SettingsError,
    TransientError,
)
from babylon_assets.ledger.sqlstates import named_error

EXIT_FAILED, EXIT_USAGE, EXIT_TRY_LATER = 1, 2, 75


class ErrorsAsExitCodes(TyperGroup):
    """Prints an error that the product names as one message, without a traceback, and exits with its code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in self.commands.values():
            explain_arguments(command)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            stopping.raise_interruptions()
            for variable, remedy in unknown_variables():
                errors.print(f"warning: {variable}; {remedy}", style="yellow", highlight=False, soft_wrap=True)
            return super().invoke(ctx)
        except (click.NoSuchOption, NoSuchCommand) as error:
            raise _with_the_closest(error) from None
        except (click.ClickException, typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except BabylonError as error:
            tell(error)
            raise typer.Exit(_exit_code(error)) from error
        except ModuleNotFoundError as error:
            tell(MissingDependency.of(error))
            raise typer.Exit(EXIT_FAILED) from error
        except KeyboardInterrupt as interruption:
            # CPython remembers one that came up through an exec of source text, as many an import makes one, and would
            # end by the signal in place of our code; the next exec makes it forget.
            exec("")
            stopping.end_at_once()
            stopping.note(interruption)
            stopping.say_stopped()
            raise typer.Exit(stopping.exit_code()) from None
        except Exception as error:
            if stopping.was_told():
                stopping.say_stopped()
                raise typer.Exit(stopping.exit_code()) from error
            named = named_error(error) or _file_error(error)
            if named is None:  # a fault of the program: with its place, and with no text in it that acts
                errors.print(traceback.format_exc(), highlight=False, soft_wrap=True)
                raise typer.Exit(EXIT_FAILED) from error
            tell(named)
            raise typer.Exit(_exit_code(named)) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _with_the_closest(error) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, which names the likely command once; typer would name it once more."""
        return click.Group.resolve_command(self, ctx, args)


def _with_the_closest(error: click.NoSuchOption | NoSuchCommand) -> click.UsageError:
    """A mistyped name with one suggestion, the likeliest: click names up to three in the order of the alphabet."""
    del (error.possibilities or [])[1:]
    return error


def _exit_code(error: BabylonError) -> int:
    if isinstance(error, NoWindow | InvalidSetting):
        return EXIT_USAGE
    return EXIT_TRY_LATER if isinstance(error, TransientError) else EXIT_FAILED


def _file_error(error: BaseException) -> PermanentError | None:
    """A path, a disk or a permission that the system refused, in words; None for any other error."""
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    place = f"{error.filename}: " if error.filename else ""
    elsewhere = "set BABYLON_HOME to another folder" if _is_at_home(error.filename) else "name another place"
    remedy = _REMEDIES.get(error.errno or 0)
    return PermanentError(f"{place}{error.strerror}; {f'{remedy}, or ' if remedy else ''}{elsewhere}")


_PERMISSION = "give yourself the right to it"
_NO_FOLDER = "move the file that is where a folder should be"
_ROOM = "make room"
#: What a person may do about a path that the system refused, by errno.
_REMEDIES = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
}


def _is_at_home(path: object) -> bool:
    """Whether a path lies in the home, is it, or is a folder above it that it would be made in."""
    if not isinstance(path, str):
        return False
    home, place = load_settings().home.absolute(), Path(path).absolute()
    return place.is_relative_to(home) or home.is_relative_to(place)


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


def _print_version(asked: bool) -> None:
    if asked:
        output.print(f"babylon {installed_version('babylon_assets')}", highlight=False)
        raise typer.Exit


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


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Turns every closed window of what agents did into a better agent."""


#: The groups of `babylon --help`, in their order, and their commands by name.
COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Begin and end": {
        "demo": demo.demo,
        "up": up.up,
        "down": down.down,
        "doctor": doctor.doctor,
        "migrate": list_windows.migrate,
    },
    "Look": {
        "windows": list_windows.list_all,
        "status": status.status,
        "scores": list_scores.list_scores,
        "chains": chain.chains,
        "lineage": chain.lineage,
        "report": write_report.report,
        "site": serve_site.site,
    },
    "Train": {"train": train.train, "backfill": backfill.backfill, "reproduce": chain.reproduce},
    "Evaluate and promote": {
        "evaluate": promote.evaluate,
        "compare": compare.compare,
        "promote": promote.promote,
        "rollback": promote.rollback,
        "promotions": promote.list_promotions,
    },
    "Serve and play": {"serve": serve.serve, "simulate": simulate.simulate},
    "Move and tidy": {
        "export": export.export,
        "import": import_file.import_file,
        "prune": chain.prune,
        "forget": chain.forget,
    },
}
for _group, _commands in COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_group)(_command)
app.command("replay", hidden=True)(chain.reproduce)


def tell(error: BabylonError) -> None:
    """The error as one message on standard error."""
    errors.print(bold("error:", "bold red"), str(error), highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Without arguments, MODE and WINDOW_ID of the earlier trainer say what to do."""
    stopping.end_at_once()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no letter for a text shows its number
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        given = given or arguments_of_mode(load_settings())
    except SettingsError as error:
        tell(error)
        sys.exit(_exit_code(error))
    try:
        app(args=given, prog_name="babylon")
    finally:
        stopping.end_at_once()
        stopping.leave()


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
