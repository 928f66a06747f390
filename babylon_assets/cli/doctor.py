"""`babylon doctor`: is everything here that the product needs, and what to do about what is not.

One look per line, in the order in which a person would mend them. Nothing heavy is imported and nothing is changed; the
hosted service is asked only when there is a key for it.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer
from rich.table import Table
from rich.text import Text

from babylon_assets.cli.list_windows import Json
from babylon_assets.cli.terminal import bold, output, print_json
from babylon_assets.config.network import is_loopback
from babylon_assets.config.settings import Settings, declarations, load_settings, printable, unknown_variables
from babylon_assets.domain.errors import BabylonError, PermanentError, SourceError
from babylon_assets.domain.trajectories import Quarantined
from babylon_assets.ledger.addresses import parse_address
from babylon_assets.ledger.database import Connection, Database, open_database
from babylon_assets.ledger.sessions import connect, only_reads
from babylon_assets.ledger.sqlstates import named_error

if TYPE_CHECKING:
    from babylon_assets.environments.base import Environment, SourceWindow

#: Packages whose versions must be these: ART patches transformers at import and fails with a newer openai client, and
#: the three of Dagster only work together.
PINS = {
    "openpipe-art": "0.5.18",
    "transformers": "5.2.0",
    "openai": "2.",
    "torch": "2.13.0",
    "dagster": "1.13.27",
    "dagster-postgres": "0.29.27",
    "dagster-webserver": "1.13.27",
}
#: ART's GPU backend brings a torch of its own.
GPU_TORCH = "2.10."
#: Seconds by which two clocks may differ, and within which the hosted service has to answer.
CLOCKS, ANSWER = 5.0, 3.0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One check: what was found, and what to do when it is not well (empty when it is).

    Attributes:
        sure: False where only a first use will tell.
    """

    name: str
    found: str
    remedy: str = ""
    sure: bool = True


def doctor(
    show_settings: Annotated[
        bool, typer.Option("--settings", help="Show every setting with its value as well.")
    ] = False,
    json: Json = False,
) -> None:
    """Check database, roles, clocks, versions, key, base model, disk and GPU, and say what to do about what is wrong.

    The first line is the verdict, and what is wrong comes first. The exit code is 1 when something is wrong.

    Example: [bold]babylon doctor[/]
    """
    settings = load_settings()
    findings = list(diagnose(settings))
    if json:
        print_json({"findings": [asdict(finding) for finding in findings], "settings": printable(settings)})
    else:
        output.print(_verdict(findings))
        output.print(_table(sorted(findings, key=lambda finding: (not finding.remedy, finding.sure))))
        if show_settings:
            output.print(_settings_table(settings))
        else:
            output.print("babylon doctor --settings shows every setting", style="dim")
    if any(finding.remedy for finding in findings):
        raise typer.Exit(1)


def diagnose(settings: Settings) -> Iterator[Diagnosis]:
    """Every check, in the order in which a person would mend them."""
    yield from (Diagnosis("settings", variable, remedy) for variable, remedy in unknown_variables())
    yield from _versions()
    yield from _database(settings)
    yield _diagnose("backend", lambda: _backend(settings))
    yield _key(settings)
    yield from _base_model(settings)


def _diagnose(name: str, look: Callable[[], str]) -> Diagnosis:
    """A finding of a look that raises our own errors; their message ends with what to do."""
    try:
        return Diagnosis(name, look())
    except (BabylonError, psycopg.Error) as error:
        return Diagnosis(name, type(error).__name__, str(named_error(error)))


def _versions() -> Iterator[Diagnosis]:
    from babylon_assets.training.devices import missing_for_art_backend

    with_gpu = {} if missing_for_art_backend() else {"torch": GPU_TORCH}
    for package, required in {**PINS, **with_gpu}.items():
        try:
            installed = version(package)
        except PackageNotFoundError:
            yield Diagnosis(package, "not installed", "type: make install")
            continue
        well = installed.split("+")[0].startswith(required)
        yield Diagnosis(package, installed, "" if well else f"{required} is needed; type: make install")


def _database(settings: Settings) -> Iterator[Diagnosis]:
    try:
        database = open_database(settings, begin=False)
        with database.connect_autocommit() as conn:
            server = conn.execute("SHOW server_version").fetchone()
            yield Diagnosis("database", f"PostgreSQL {server[0] if server else '?'} at {database.place}")
            yield _clock(conn)
            yield _time_zone(conn)
            yield _role(conn, database)
            yield _diagnose("our tables", lambda: _revision(conn))
            yield from _standby(conn, database)
        yield from _source(database)
        yield from _dagster(settings)
        yield _diagnose("the game's tables", lambda: _game(settings, database))
        yield from _rights(settings, database)
    except BabylonError as error:
        yield Diagnosis("database", type(error).__name__, str(error))


def _clock(conn: Connection) -> Diagnosis:
    """The database's clock against this machine's: windows are closed by this one and rows are dated by that."""
    before = time.time()
    row = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    ahead = float(row[0]) - (before + time.time()) / 2
    remedy = "" if abs(ahead) <= CLOCKS else "set both clocks by NTP, or windows close before their rows are there"
    return Diagnosis("clock", f"the database's is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}", remedy)


def _time_zone(conn: Connection) -> Diagnosis:
    row = conn.execute("SHOW TimeZone").fetchone()
    zone = row[0] if row else "?"
    remedy = "" if zone == "UTC" else "remove the TimeZone from the role or the URL's options"
    return Diagnosis("time zone", f"our sessions are {zone}; this machine's {time.tzname[0]} plays no part", remedy)


def _role(conn: Connection, database: Database) -> Diagnosis:
    """Whether our schema is the role's own; a schema that is missing can be made by a role that may create."""
    row = conn.execute(
        """
        SELECT current_user, has_database_privilege(current_database(), 'CREATE'),
            (SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'babylon_training')
        """
    ).fetchone()
    assert row is not None
    role, may_create, owns = row
    if owns or (owns is None and may_create):
        return Diagnosis("role", f"{role} {'owns' if owns else 'may create'} the schema babylon_training")
    privilege = "CREATE SCHEMA" if owns is None else "ALTER SCHEMA"
    how = "AUTHORIZATION" if owns is None else "OWNER TO"
    return Diagnosis(
        "role",
        f"{role} does not own the schema babylon_training at {database.place}",
        f'have the owner of the database run: {privilege} babylon_training {how} "{role}"',
    )


def _revision(conn: Connection) -> str:
    from babylon_assets.ledger.database import newest_revision

    there = conn.execute("SELECT to_regclass('babylon_training.alembic_version')").fetchone()
    row = (
        conn.execute("SELECT version_num FROM babylon_training.alembic_version").fetchone()
        if there and there[0]
        else None
    )
    revision, newest = row[0] if row else "none", newest_revision()
    if revision != newest:
        raise PermanentError(f"revision {revision}, newest is {newest}; type: babylon migrate")
    return f"revision {revision}, the newest"


def _game(settings: Settings, database: Database) -> str:
    from babylon_assets.environments.registry import open_environment

    environment = open_environment(settings)
    with database.connect_source() as source:
        environment.check(source)
        windows = environment.list_windows(source)
        note = environment.describe_record(source)
    newest = f", the newest {windows[-1].window}" if windows else ""
    return f"{environment.name}: {len(windows)} windows{newest}{note}{_read_dry(environment, database, windows)}"


def _read_dry(environment: Environment, database: Database, windows: Sequence[SourceWindow]) -> str:
    """The newest window, read as training would read it, in a transaction that cannot write.

    Raises:
        BabylonError: it cannot be read, or none of its rows.
    """
    if not windows:
        return ""
    window, refused, rows = windows[-1].window, Counter[str](), 0
    try:
        with database.connect_source() as source:
            source.read_only = True
            for row in environment.read_window(source, window):
                rows += 1
                if isinstance(row, Quarantined):
                    refused[row.reason[:80]] += 1
    except psycopg.Error as error:
        raise (named_error(error) or error) from None
    if not refused:
        return ""
    [(reason, most)] = refused.most_common(1)
    text = f"{refused.total()} of {rows} rows of {window} would be refused, {most} of them for: {reason}"
    if refused.total() == rows:
        raise SourceError(f"{text}; see which version of the game wrote them")
    return f"; {text}"


def _standby(conn: Connection, database: Database) -> Iterator[Diagnosis]:
    """A hot standby refuses every write of ours and the locks of training; a role may be set to read only."""
    if not only_reads(conn):
        return
    row = conn.execute("SELECT current_user, pg_is_in_recovery()").fetchone()
    role, is_standby = row if row is not None else ("?", True)
    remedy = "set DATABASE_URL to the primary, or LEDGER_DATABASE_URL to a database that can be written"
    if database.is_apart:
        remedy = "set LEDGER_DATABASE_URL to a database that can be written"
    if not is_standby:
        alter = f'ALTER ROLE "{role}" IN DATABASE "{conn.info.dbname}" SET default_transaction_read_only = off'
        yield Diagnosis("read only", f"sessions of {role} only read (default_transaction_read_only)", f"run: {alter}")
    else:
        yield Diagnosis("standby", "the database is a standby and only reads", remedy)


def _source(database: Database) -> Iterator[Diagnosis]:
    """The environment's database, where our tables lie in another one."""
    if not database.is_apart:
        return
    with database.connect_source() as source:
        only = ", which only reads" if only_reads(source) else ""
    yield Diagnosis("source", f"the environment's tables are at {database.source_place}{only}")


def _dagster(settings: Settings) -> Iterator[Diagnosis]:
    """Whether Dagster's database is there, and no pooler changes sessions before it, where it has an address."""
    if settings.database.dagster_url is not None:
        address = parse_address(settings.database.dagster_url, "DAGSTER_DATABASE_URL")

        def look() -> str:
            connect(address, autocommit=True).close()
            return address.place

        yield _diagnose("Dagster's database", look)


def _rights(settings: Settings, database: Database) -> Iterator[Diagnosis]:
    """What the settings let be written that the role may not write."""
    from babylon_assets.environments.registry import open_environment

    with database.connect_source() as source:
        for sentence in open_environment(settings).missing_rights(source):
            yield Diagnosis("rights", "a right is missing", sentence)


def _backend(settings: Settings) -> str:
    from babylon_assets.training.backends.registry import choose_backend

    choice = choose_backend(settings)
    return f"{choice.name}: {choice.reason}"


def _key(settings: Settings) -> Diagnosis:
    """Whether the hosted service answers and takes the key; redirects are not followed, they would carry it along."""
    if settings.training.wandb_api_key is None:
        return Diagnosis("key of W&B", "not set: nothing is trained on the hosted service")
    import httpx

    url = f"{settings.serverless.url.rstrip('/')}/preview/training-jobs/doctor/events"
    headers = {"Authorization": f"Bearer {settings.training.wandb_api_key}"}
    try:
        with httpx.Client(timeout=ANSWER, trust_env=not is_loopback(url)) as client:
            status = client.get(url, headers=headers).status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return Diagnosis(
            "key of W&B",
            f"set; {settings.serverless.url} does not answer ({type(error).__name__})",
            "check the network and SERVERLESS_URL, or set TRAINING_BACKEND=embedded to train on this machine",
        )
    if status in (401, 403):
        return Diagnosis(
            "key of W&B", f"set, and refused ({status})", "set WANDB_API_KEY to a valid key, or leave it out"
        )
    if status >= 500:
        return Diagnosis("key of W&B", f"set; the hosted service answers {status}", "try again later")
    return Diagnosis("key of W&B", "set, and the hosted service takes it")


def _base_model(settings: Settings) -> Iterator[Diagnosis]:
    """The base model, with room on the disk and memory of the GPU for it."""
    from babylon_assets.training import capacity
    from babylon_assets.training.backends.registry import SHIPPED, choose_backend
    from babylon_assets.training.devices import cuda_device
    from babylon_assets.training.families import find_config
    from babylon_assets.training.model_sources import find_made_folder, is_source

    try:
        backend = choose_backend(settings).backend
    except BabylonError:
        backend = SHIPPED[-1]  # why it is not another one is said under `backend`
    base = settings.training.base_model or backend.find_base_model(settings)
    if base is not None and is_source(base) and (folder := find_made_folder(settings.home, base)) is not None:
        base = str(folder)
    trains_here = backend.capabilities.trains_here
    here = not trains_here or (base is not None and find_config(base) is not None)
    if base is None:
        yield Diagnosis("base model", "not made yet; the first training makes it, in about a minute")
    else:
        place = "made" if is_source(base) else "fetched from the hub"
        unknown = Diagnosis("base model", f"{base}, {place} by the first training, which checks it", sure=False)
        yield _diagnose("base model", lambda: _local_model(base, trains_here)) if here else unknown
    yield _disk(settings, capacity.disk_gib(settings, base if trains_here else None))
    device = cuda_device() if trains_here else None
    if device is not None:
        gpu_gib = capacity.gpu_gib(base) if base else None
        fits = gpu_gib is None or gpu_gib <= device.memory_gib
        remedy = "" if fits else "set BASE_MODEL to a smaller model, or train on a GPU with more memory"
        about = f", about {gpu_gib:.0f} GiB are needed" if gpu_gib is not None else ""
        yield Diagnosis("GPU", f"{device.name}, {device.memory_gib:.0f} GiB{about}", remedy)


def _local_model(base: str, trains_here: bool) -> str:
    """A base model by its name.

    Raises:
        BaseModelRefused: it is on this machine and cannot be trained here.
    """
    from babylon_assets.training.families import require_local

    if trains_here:
        require_local(base)
    return base


def _disk(settings: Settings, wanted: float) -> Diagnosis:
    place = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    remedy = "" if free >= wanted else f"free {wanted:.0f} GiB, or set BABYLON_HOME to a folder on another disk"
    return Diagnosis("disk", f"{free:.1f} GiB free at {place}, about {wanted:.1f} GiB are needed", remedy)


def _verdict(findings: Sequence[Diagnosis]) -> Text:
    """One sentence: how many things are wrong, or that all is well, and what is not known yet."""
    wrong = [finding.name for finding in findings if finding.remedy]
    open_ones = [finding.name for finding in findings if not finding.sure and not finding.remedy]
    rest = f"; the first training will tell: {', '.join(open_ones)}" if open_ones else ""
    if wrong:
        return bold(
            f"{len(wrong)} of {len(findings)} checks found something to do: {', '.join(wrong)}{rest}", "bold red"
        )
    return bold(f"all is well: {len(findings) - len(open_ones)} checks{rest}", "bold green")


def _table(findings: list[Diagnosis]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "check", "found", "what to do"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        mark = bold("ok", "green") if finding.sure else bold("?", "yellow")
        mark = bold("no", "bold red") if finding.remedy else mark
        table.add_row(mark, finding.name, finding.found, finding.remedy)
    return table


def _settings_table(settings: Settings) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, title="settings", title_justify="left")
    for name in ("variable", "value", "meaning"):
        table.add_column(name, overflow="fold")
    values = printable(settings)
    for item in declarations():
        table.add_row(item.variable, values[item.variable] or "-", item.doc)
    return table
