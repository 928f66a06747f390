"""`babylon evaluate`, `promote`, `rollback` and `promotions`: how good a checkpoint is, and which one is served."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from babylon_assets.cli.chain import Named
from babylon_assets.cli.list_windows import Json, opened
from babylon_assets.cli.terminal import (
    count,
    fitting_table,
    output,
    print_fact,
    print_json,
    short,
    tell_step,
    waiting,
)
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.policies import BASE, policy_name
from babylon_assets.domain.verdict_table import explain_decision
from babylon_assets.ledger import checkpoints, lineage, promotions, verdicts
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Connection, Database
from babylon_assets.ledger.promotions import Promotion

if TYPE_CHECKING:
    from babylon_assets.ledger.evaluations import Evaluation

Why = Annotated[str, typer.Option(help="The reason; it is kept with the decision.")]


def evaluate(
    policy: Annotated[
        str | None,
        typer.Option(help="A policy such as babylon-agent@3, @3 or base.", show_default="the served one"),
    ] = None,
    snapshot: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A benchmark snapshot of the game, as JSON.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="How often a snapshot is played, each with a seed.")] = 8,
    json: Json = False,
) -> None:
    """Measure a checkpoint on its environment: on the simulated market, on recorded prompts, or on a snapshot.

    A game's checkpoint answers prompts that the game's own agents were given. A measurement that is in
    the ledger is not made again.

    Example: [bold]babylon evaluate --policy babylon-agent@3[/]

    Example: [bold]babylon evaluate --snapshot benchmark.json --policy base[/]
    """
    settings = load_settings()
    database = opened(settings)
    checkpoint = _policy(settings, database, policy)
    from babylon_assets.environments.babylon.snapshot_reader import read_snapshot
    from babylon_assets.evaluation.deployment import tell_benchmark
    from babylon_assets.evaluation.loaded_policies import why_not_loadable
    from babylon_assets.evaluation.measurements import measure_snapshot

    if (reason := why_not_loadable(settings, checkpoint)) is not None:
        raise PermanentError(f"{_name(checkpoint)} cannot be evaluated here: {reason}; choose another policy")
    with waiting(f"measuring {_name(checkpoint)}"):
        if snapshot is None:
            evaluation, facts = _measure(settings, database, checkpoint)
        else:
            evaluation = measure_snapshot(settings, database, checkpoint, read_snapshot(snapshot), range(runs))
            tell_benchmark(settings, database, checkpoint, evaluation, str(snapshot))
            facts = _snapshot_facts(evaluation)
    _write_card(database, checkpoint)
    shown = {"policy": _name(checkpoint), "evaluation": evaluation.evaluation, "version": evaluation.version, **facts}
    if json:
        print_json(shown)
        return
    for name, value in shown.items():
        print_fact(name, value, width=14)


def _write_card(database: Database, checkpoint: Checkpoint) -> None:
    """The checkpoint's model card, with what was measured now."""
    from babylon_assets.training.model_cards import write_card

    with database.connect() as conn:
        write_card(conn, checkpoint)


def _policy(settings: Settings, database: Database, name: str | None) -> Checkpoint:
    """The checkpoint that is meant; a chain begins with its base model when it has not begun."""
    with database.connect() as conn:
        if name not in (None, BASE, "@0"):
            return lineage.find(conn, name, settings.model_name)
        served = promotions.promoted(conn, settings.model_name) if name is None else None
        line = checkpoints.chain(conn, settings.model_name)
    if served is not None or line:
        return served or line[0]
    from babylon_assets.training.roots import base_model_of, root_of

    base = base_model_of(settings)
    with database.connect() as conn:
        return root_of(conn, settings, base)


def _measure(settings: Settings, database: Database, checkpoint: Checkpoint) -> tuple[Evaluation, dict[str, Any]]:
    """The environment's benchmark where it has one, else its recorded prompts; and what to show of it."""
    from babylon_assets.environments.registry import open_environment
    from babylon_assets.evaluation.measurements import measure_benchmark, measure_prompts, prompts_asked

    evaluation = measure_benchmark(settings, database, checkpoint)
    if evaluation is not None:
        return evaluation, _market_facts(evaluation)
    if open_environment(settings).answers is None:
        raise PermanentError(
            "this environment measures no policy: it has no benchmark, and cannot say what an answer to a recorded "
            "prompt would have been worth; the gate compares the answers of held-out agents"
        )
    evaluation = measure_prompts(settings, database, checkpoint, prompts_asked(settings, database))
    if evaluation is None:
        raise PermanentError(
            "there is no recorded prompt to evaluate on; materialize training_datasets for a window first, "
            "or name a benchmark snapshot with --snapshot"
        )
    return evaluation, _prompts_facts(evaluation)


def _prompts_facts(evaluation: Evaluation) -> dict[str, Any]:
    gain = evaluation.results["gain_on_recorded"]
    return {
        "reward": evaluation.value,
        "low": evaluation.low,
        "high": evaluation.high,
        "valid_share": evaluation.results["valid_share"],
        "gain_on_recorded": gain[0] if gain else None,
        "prompts": len(evaluation.results["answers"]),
    }


def _market_facts(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "reward": evaluation.value,
        "low": evaluation.low,
        "high": evaluation.high,
        "valid_share": evaluation.results["valid_share"],
        "advantage": evaluation.results["advantage"],
        "seeds": len(evaluation.seeds or ()),
    }


def _snapshot_facts(evaluation: Evaluation) -> dict[str, Any]:
    left_out = evaluation.results.get("left_out")
    names = ("of_optimal", "optimal", "accuracy", "win_rate", "drawdown", "trades", "valid_share", "runs")
    return {
        "pnl": evaluation.value,
        "low": evaluation.low,
        "high": evaluation.high,
        **{name: evaluation.results[name] for name in names},
        **({"left_out": left_out} if left_out else {}),
    }


def promote(checkpoint: Named, why: Why, json: Json = False) -> None:
    """Serve a checkpoint, whatever the gate said of it. The chain goes on from it.

    Example: [bold]babylon promote babylon-agent@3 --why "it trades more carefully"[/]
    """
    settings = load_settings()
    database = opened(settings)
    from babylon_assets.evaluation.promoting import promote_by_hand

    with database.connect() as conn:
        chosen = lineage.find(conn, checkpoint, settings.model_name)
        promotion, aside = promote_by_hand(conn, settings, chosen, getpass.getuser(), _shorten(why))
    _tell(settings, database, promotion, aside, json)


def rollback(
    why: Why,
    to: Annotated[
        str | None, typer.Option(help="The policy to go back to.", show_default="the one served before")
    ] = None,
    json: Json = False,
) -> None:
    """Serve an earlier checkpoint again, and train on from it. What the chain has beside its line is set aside.

    Without a policy it undoes the newest promotion, and one more each time.

    Example: [bold]babylon rollback --to babylon-agent@3 --why "it lost money since"[/]
    """
    settings = load_settings()
    database = opened(settings)
    from babylon_assets.evaluation.promoting import roll_back, served_before

    with database.connect() as conn:
        chain = settings.model_name
        target = lineage.find(conn, to, chain) if to is not None else served_before(conn, chain)
        tell_step(f"going back to {_name(target)}")
        promotion, aside = roll_back(conn, settings, target, getpass.getuser(), _shorten(why))
    _tell(settings, database, promotion, aside, json)


def list_promotions(
    at: Annotated[
        str | None,
        typer.Option(help="Show what was served at this time, UTC: the last 14:00, or 2026-11-05T14:00."),
    ] = None,
    json: Json = False,
) -> None:
    """List promotions, rollbacks and rejections, oldest first, or say what was served at a time.

    Example: [bold]babylon promotions[/]

    Example: [bold]babylon promotions --at 14:00[/]
    """
    settings = load_settings()
    moment = _moment(at) if at is not None else None
    with opened(settings).connect() as conn:
        if moment is not None:
            _show_served(conn, settings.model_name, moment, json)
            return
        facts = decisions(conn, settings.model_name)
    if json:
        print_json(facts)
    elif not facts:
        output.print("nothing was promoted yet; `babylon train WINDOW` trains a window and asks the gate")
    else:
        output.print(_table(facts))


def _show_served(conn: Connection, chain: str, moment: datetime, json: bool) -> None:
    served = promotions.served_at(conn, chain, moment)
    name = _name(served) if served is not None else None
    if json:
        print_json({"at": moment, "served": name, "id": served.id if served else None})
    else:
        output.print(f"{moment:%Y-%m-%d %H:%M:%S} UTC  {name or 'nothing was promoted by then: the base model'}")


def decisions(conn: Connection, chain: str) -> list[dict[str, Any]]:
    """Every promotion, rollback and rejection of a chain, oldest first."""
    names = {checkpoint.id: _name(checkpoint) for checkpoint in checkpoints.chain(conn, chain)}
    entries = [{**_promotion_facts(row, names), "window": None} for row in promotions.history(conn, chain)]
    entries += [
        {
            "at": row.judged_at,
            "kind": "rejection",
            "policy": names[row.checkpoint_id],
            "id": row.checkpoint_id,
            "from": names.get(row.champion_id or ""),
            "by": "gate",
            "why": row.why,
            "summary": explain_decision(row.why, row.verdict),
            "window": None,
        }
        for row in verdicts.of_chain(conn, chain)
        if not row.passed
    ]
    places = {_name(checkpoint): checkpoint.window_id for checkpoint in checkpoints.chain(conn, chain)}
    return [{**entry, "window": places[entry["policy"]]} for entry in sorted(entries, key=lambda entry: entry["at"])]


def checkpoint_state(conn: Connection, chain: str, window: str) -> str | None:
    """What was decided of a window's checkpoint, with the reason of a rejection; None where nothing was."""
    checkpoint = checkpoints.by_window(conn, chain, window)
    decision = verdicts.standings(conn, chain).get(window)
    if checkpoint is None or decision is None:
        return None
    why = f": {checkpoint.rejected.partition(': ')[2]}" if checkpoint.rejected else ""
    return f"{decision} {_name(checkpoint)}{why}"


def _promotion_facts(row: Promotion, names: dict[str, str]) -> dict[str, Any]:
    return {
        "at": row.promoted_at,
        "kind": row.kind,
        "policy": names[row.to_id],
        "id": row.to_id,
        "from": names.get(row.from_id or ""),
        "by": row.promoted_by,
        "why": row.why,
        "summary": explain_decision(row.why, row.verdict),
    }


def _table(entries: list[dict[str, Any]]) -> Table:
    rows = [
        {
            "at (UTC)": f"{entry['at'].astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            "what": entry["kind"],
            "policy": entry["policy"],
            "id": short(entry["id"]),
            "by": entry["by"],
            "why": entry["summary"],
        }
        for entry in entries
    ]
    return fitting_table(rows, drop=("id", "by"))


def _tell(settings: Settings, database: Database, promotion: Promotion, aside: int, json: bool) -> None:
    """Say what was decided, and tell the game where WRITE_TRAINED_MODELS allows it.

    Args:
        aside: how many checkpoints the chain does not go on from any more.
    """
    from babylon_assets.evaluation.deployment import tell_game

    named = tell_game(settings, database)
    with database.connect() as conn:
        names = {checkpoint.id: _name(checkpoint) for checkpoint in checkpoints.chain(conn, promotion.chain)}
    if json:
        named_ones = {"policy": names[promotion.to_id], "from": names.get(promotion.from_id or "")}
        print_json({**asdict(promotion), **named_ones, "set_aside": aside})
        return
    before = names.get(promotion.from_id or "", "the base model")
    output.print(f"{names[promotion.to_id]} is served; before it was {before}")
    if aside:
        noun = "checkpoint is" if aside == 1 else "checkpoints are"
        output.print(f"{count(aside)} {noun} set aside, and stay in the ledger; `babylon chains` lists them")
    if named is not None:
        output.print(f"the game's trained_models names {named}")


def _shorten(why: str) -> str:
    if not why.strip():
        raise typer.BadParameter("say why", param_hint="--why")
    return why.strip()


def _moment(text: str) -> datetime:
    """A time in UTC that has been; of an hour and a minute alone the last one."""
    now = datetime.now(UTC)
    alone = len(text) <= 8 and ":" in text
    try:
        moment = datetime.fromisoformat(f"{now:%Y-%m-%d}T{text}" if alone else text)
    except ValueError:
        raise typer.BadParameter("write it as 14:00 or 2026-11-05T14:00", param_hint="--at") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if alone and moment > now:
        return moment - timedelta(days=1)
    if moment > now:
        raise typer.BadParameter(f"{text} is still to come; name a time that has been", param_hint="--at")
    return moment


def _name(checkpoint: Checkpoint) -> str:
    return policy_name(checkpoint.chain, checkpoint.step)
