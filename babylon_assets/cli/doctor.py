"""`babylon doctor`: is everything here that the product needs, and what to do about what is not.

One look per line, in the order in which a person would mend them. Nothing heavy is imported and nothing is changed; the
hosted service is asked only when there is a key for it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from babylon_assets.cli.database_checks import diagnose_database
from babylon_assets.cli.diagnosis import Diagnosis, diagnose_by, refuse
from babylon_assets.cli.list_windows import Json
from babylon_assets.cli.terminal import bold, output, print_json, waiting
from babylon_assets.config.network import is_loopback
from babylon_assets.config.settings import Settings, declarations, load_settings, printable, unknown_variables
from babylon_assets.domain.errors import BabylonError, SettingsError

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
#: Seconds within which the hosted service has to answer.
ANSWER = 3.0


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
    with waiting("checking the installation"):
        findings = list(diagnose(settings))
    if json:
        print_json({"findings": [asdict(finding) for finding in findings], "settings": printable(settings)})
    else:
        output.print(_verdict(findings))
        output.print(_table(sorted(findings, key=lambda finding: (not finding.wrong, finding.sure))))
        if show_settings:
            output.print(_settings_table(settings))
        else:
            output.print("babylon doctor --settings shows every setting", style="dim")
    if any(finding.wrong for finding in findings):
        raise typer.Exit(1)


def diagnose(settings: Settings) -> Iterator[Diagnosis]:
    """Every check, in the order in which a person would mend them."""
    yield from (Diagnosis("settings", variable, remedy) for variable, remedy in unknown_variables())
    yield from _versions()
    yield from _environment(settings)
    yield from diagnose_database(settings)
    yield diagnose_by("backend", lambda: _backend(settings))
    yield _key(settings)
    yield from _base_model(settings)


def _environment(settings: Settings) -> Iterator[Diagnosis]:
    """What the settings say of the environment and the rewards; what `auto` is, the database says or says not."""
    from babylon_assets.environments.registry import open_environment
    from babylon_assets.environments.weighted_scorers import check_weights

    try:
        yield Diagnosis("environment", open_environment(settings).name)
    except BabylonError as error:
        if settings.database.environment != "auto":
            yield refuse("environment", error)
    else:
        yield diagnose_by("rewards", lambda: check_weights(settings))


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


def _model_of_the_environment(settings: Settings) -> Diagnosis:
    """The environment's own base model, before it is made; most have none."""
    from babylon_assets.environments.base import BaseEnvironment
    from babylon_assets.environments.registry import open_environment

    environment = None
    with suppress(BabylonError):  # that it cannot be opened is said of the environment
        environment = open_environment(settings)
    making: object = getattr(type(environment), "make_base_model", None)
    if environment is not None and making is BaseEnvironment.make_base_model:
        return Diagnosis(
            "base model",
            f"not set, and the environment {environment.name} has none of its own",
            "set BASE_MODEL to the folder or hub name of a model that reads its prompts, or to smollm2",
        )
    return Diagnosis("base model", "not made yet; the first training makes it, in about a minute")


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
    try:
        base = settings.training.base_model or backend.find_base_model(settings)
    except SettingsError:
        base = None  # which environment there is not is said of the environment
    if base is not None and is_source(base) and (folder := find_made_folder(settings.home, base)) is not None:
        base = str(folder)
    trains_here = backend.capabilities.trains_here
    if base is None:
        yield diagnose_by("base model", lambda: _model_of_the_environment(settings))
    elif trains_here and find_config(base) is None:
        yield diagnose_by("base model", lambda: _model_elsewhere(base))
    else:
        yield diagnose_by("base model", lambda: _local_model(base, trains_here))
    yield _disk(settings, capacity.disk_gib(settings, base if trains_here else None))
    device = cuda_device() if trains_here else None
    if device is not None:
        gpu_gib = capacity.gpu_gib(base) if base else None
        fits = gpu_gib is None or gpu_gib <= device.memory_gib
        remedy = "" if fits else "set BASE_MODEL to a smaller model, or train on a GPU with more memory"
        about = f", about {gpu_gib:.0f} GiB are needed" if gpu_gib is not None else ""
        yield Diagnosis("GPU", f"{device.name}, {device.memory_gib:.0f} GiB{about}", remedy)


def _model_elsewhere(base: str) -> str | Diagnosis:
    """A base model that the first training makes or fetches: what is known of it before.

    Raises:
        BaseModelRefused: it cannot be trained here.
    """
    from babylon_assets.training.families import FAMILIES, find_family_on_hub, require_local
    from babylon_assets.training.model_sources import is_source
    from babylon_assets.training.model_wheels import PACKAGED

    require_local(base)
    if base in PACKAGED:
        return f"{PACKAGED[base].about}; the first training fetches it"
    family = None if is_source(base) else find_family_on_hub(base, ANSWER)
    if family is not None:
        return f"{base}, of the {family} family; the first training fetches it from the hub"
    place = "the first training makes a folder of it" if is_source(base) else "the hub does not answer"
    families = ", ".join(FAMILIES.values())
    about = f"{base}; {place}; not known yet whether it is of a family that can be trained here: {families}"
    sooner = "" if is_source(base) else "reach the hub and ask again, or set BASE_MODEL to smollm2 or a model's folder"
    return Diagnosis("base model", about, sooner, sure=False)


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
    if not os.access(place, os.W_OK):
        return Diagnosis("disk", f"nothing may be written at {place}", "set BABYLON_HOME to a folder that is yours")
    remedy = "" if free >= wanted else f"free {wanted:.0f} GiB, or set BABYLON_HOME to a folder on another disk"
    return Diagnosis("disk", f"{free:.1f} GiB free at {place}, about {wanted:.1f} GiB are needed", remedy)


def _verdict(findings: Sequence[Diagnosis]) -> Text:
    """One sentence: how many things are wrong, or that all is well, and what is not known yet."""
    wrong = [finding.name for finding in findings if finding.wrong]
    open_ones = [finding.name for finding in findings if not finding.sure]
    rest = f"; not known before the first training: {', '.join(open_ones)}" if open_ones else ""
    if wrong:
        return bold(
            f"{len(wrong)} of {len(findings)} checks found something to do: {', '.join(wrong)}{rest}", "bold red"
        )
    if open_ones:
        return bold(f"nothing is wrong in {len(findings) - len(open_ones)} checks{rest}", "bold yellow")
    return bold(f"all is well: {len(findings)} checks", "bold green")


def _table(findings: list[Diagnosis]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "check", "found", "what to do"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        mark = bold("ok", "green") if finding.sure else bold("?", "yellow")
        mark = bold("no", "bold red") if finding.wrong else mark
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
