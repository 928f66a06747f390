"""`babylon chains`, `lineage`, `reproduce`, `prune` and `forget`: where checkpoints come from, and what is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from babylon_assets.cli import stopping
from babylon_assets.cli.list_windows import Everything, Json, opened, print_newest
from babylon_assets.cli.terminal import (
    as_set,
    count,
    errors,
    fitting_table,
    is_empty,
    number,
    output,
    print_fact,
    print_json,
    short,
    waiting,
)
from babylon_assets.config.settings import load_settings
from babylon_assets.domain.display_text import format_plural, format_scorers
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger import evaluations
from babylon_assets.ledger import lineage as ledger
from babylon_assets.ledger.checkpoint_register import read_states
from babylon_assets.ledger.checkpoints import Checkpoint

#: Ancestors that a person is shown.
MOST_OF_A_LINE = 8
Named = Annotated[
    str, typer.Argument(help="A policy such as babylon-agent@3, @3 or base, or the start of a checkpoint's id.")
]


def chains(everything: Everything = False, json: Json = False) -> None:
    """Show the newest checkpoints with what was measured of them and their state, each branch where it begins.

    The reward is what the policy earned when it was evaluated, which the gate goes by: the newest on the environment's
    benchmark, or on recorded prompts where it has none. It is not the reward of the samples, which `babylon windows`
    shows. What `babylon compare` measures is shown there alone.

    The state is `served`, `served before`, `passed` (by the gate, and not promoted), `rejected` (by the gate), `rolled
    back`, `no verdict`, `branch` (never served), or `base model`.

    Example: [bold]babylon chains[/]
    """
    with opened(load_settings()).connect() as conn:
        checkpoints = ledger.all_checkpoints(conn)
        states, rewards = read_states(conn), evaluations.read_rewards(conn)
    if json:
        print_json(
            [
                {**_facts(row), "state": states[row.id], "rejected": row.rejected, "reward": rewards.get(row.id)}
                for row in checkpoints
            ]
        )
    elif not checkpoints:
        output.print("no checkpoints yet; `babylon train WINDOW` makes the first")
    else:
        rows = list(_in_tree_order(checkpoints))
        names = {checkpoint.id: _name(checkpoint) for checkpoint in checkpoints}
        print_newest(rows, everything, lambda shown: _tree_table(shown, names, states, rewards))


def tree_table(checkpoints: Sequence[Checkpoint], states: Mapping[str, str], rewards: Mapping[str, float]) -> Table:
    """A row per checkpoint, children under their parent; a line of single children is not indented.

    Args:
        states, rewards: by checkpoint id, as of `read_states` and `evaluations.read_rewards`.
    """
    names = {checkpoint.id: _name(checkpoint) for checkpoint in checkpoints}
    return _tree_table(list(_in_tree_order(checkpoints)), names, states, rewards)


def _tree_table(
    ordered: Sequence[tuple[Checkpoint, int]],
    names: Mapping[str, str],
    states: Mapping[str, str],
    rewards: Mapping[str, float],
) -> Table:
    """A row per checkpoint, its name indented by its depth in the tree.

    Args:
        names: of these checkpoints and their parents, by id.
    """
    rows = [
        {
            "policy": "  " * depth + names[checkpoint.id],
            "id": short(checkpoint.id),
            "window": checkpoint.window_id or "-",
            "reward": number(rewards.get(checkpoint.id)),
            "state": states[checkpoint.id] + ("" if checkpoint.path or not checkpoint.step else ", weights pruned"),
            "parent": names.get(checkpoint.parent_id or "", "-"),
            "backend": checkpoint.backend,
        }
        for checkpoint, depth in ordered
    ]
    if not any(checkpoint.id in rewards for checkpoint, _ in ordered):
        rows = [{name: cell for name, cell in row.items() if name != "reward"} for row in rows]
    return fitting_table(rows, drop=("backend", "parent", "id"), right=("reward",))


def _in_tree_order(checkpoints: Sequence[Checkpoint]) -> Iterator[tuple[Checkpoint, int]]:
    """Each checkpoint after its parent, what the chain left before what it went on to, and how many branches away."""
    children: dict[str | None, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        children.setdefault(checkpoint.parent_id, []).append(checkpoint)
    waiting = [(checkpoint, 0) for checkpoint in reversed(children.get(None, []))]
    while waiting:
        checkpoint, depth = waiting.pop()
        yield checkpoint, depth
        below = children.get(checkpoint.id, [])
        waiting += [
            (child, depth + (child.chain != checkpoint.chain))
            for child in sorted(below, key=lambda c: c.chain != checkpoint.chain or c.rejected is not None)
        ]


def lineage(
    checkpoint: Annotated[str | None, typer.Argument(help="A policy or the start of a checkpoint's id.")] = None,
    trajectory: Annotated[str | None, typer.Option(help="Show the checkpoints that saw this trajectory.")] = None,
    json: Json = False,
) -> None:
    """Show what a checkpoint was made from, or which checkpoints a trajectory went into.

    Example: [bold]babylon lineage babylon-agent@3[/]

    Example: [bold]babylon lineage --trajectory t-123[/]
    """
    if (checkpoint is None) == (trajectory is None):
        raise typer.BadParameter("give a checkpoint, or --trajectory", param_hint="CHECKPOINT")
    settings = load_settings()
    with opened(settings).connect() as conn:
        if trajectory is not None:
            shown: dict[str, Any] = ledger.policies_that_saw(conn, trajectory=trajectory)
            if not shown and not ledger.knows_trajectory(conn, trajectory):
                raise PermanentError(
                    f"the ledger knows no trajectory {trajectory!r}; `babylon scores WINDOW` lists those of a window"
                )
        elif checkpoint is not None:
            shown = _backward(conn, ledger.find(conn, checkpoint, settings.model_name))
    if json:
        print_json(shown)
    elif not shown:
        output.print("no checkpoint has seen it")
    elif checkpoint is not None:
        shown = {
            **_in_short(shown),
            "parent": " ".join(filter(None, [next(iter(shown["line"]), None), shown["parent"]])),
        }
    for name, value in [] if json else shown.items():
        if not is_empty(value):
            print_fact(name, value, width=12)


def _backward(conn: Any, checkpoint: Checkpoint) -> dict[str, Any]:
    ancestors = ledger.ancestors(conn, checkpoint)
    return {
        **_facts(checkpoint),
        "line": [_name(ancestor) for ancestor in ancestors],
        "line_ids": [ancestor.id for ancestor in ancestors],
        "trajectories": ledger.trained_trajectories(conn, checkpoint),
        "carried_from": ledger.windows_of(conn, checkpoint),
        "scores": ledger.scorers(conn, checkpoint),
        "settings": dict(checkpoint.settings),
        "seed": checkpoint.seed,
        "versions": dict(checkpoint.versions),
        "run": checkpoint.dagster_run_id,
    }


def _in_short(shown: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a person: how many trajectories of which window, and the line up to its last steps."""
    samples, late = shown["trajectories"], shown["carried_from"]
    own = f"{count(len(samples))} with {format_plural(sum(samples.values()), 'sample')}; --json names them"
    joined = ", ".join(f"{number} of {window}" for window, number in late.items())
    # No line ends between a name and its id.
    line = [f"{name}\xa0{short(known)}" for name, known in zip(shown["line"], shown["line_ids"], strict=True)]
    others = {name: value for name, value in shown.items() if name not in ("scores", "line_ids")}
    return {
        **others,
        "settings": as_set(shown["settings"]),
        "line": line if len(line) <= MOST_OF_A_LINE else [*line[: MOST_OF_A_LINE - 1], f"... {line[-1]}"],
        "trajectories": own,
        "carried_from": f"late samples: {joined}" if joined else None,
        "scorers": format_scorers(shown["scores"]) or None,
    }


def reproduce(checkpoint: Named, json: Json = False) -> None:
    """Reproduce a checkpoint from the ledger, in a temporary folder, and say whether its weights are the same.

    The exit code is 1 when they are not. Equality bit for bit holds on one machine with one thread.

    Example: [bold]babylon reproduce babylon-agent@3[/]
    """
    settings = load_settings()
    database = opened(settings)
    with database.connect() as conn:
        trained = ledger.find(conn, checkpoint, settings.model_name)
    from babylon_assets.training.reproduction import reproduce as train_again

    stopping.begins_anew()
    training = waiting(f"training {_name(trained)} again from the ledger")
    with training, tempfile.TemporaryDirectory(prefix="babylon-reproduce-") as home:
        result = train_again(settings, database, trained, Path(home))
    if json:
        facts = {"same": result.same, "recorded": result.recorded, "reproduced": result.reproduced}
        print_json({**facts, "versions": result.versions})
    else:
        output.print(f"{_name(trained)}: {'the same, bit for bit' if result.same else 'not the same'}")
        output.print(
            f"  recorded    {result.recorded}\n  reproduced  {result.reproduced}", highlight=False, soft_wrap=True
        )
        for name, change in result.versions.items():
            output.print(f"  {name}  {change}", highlight=False, soft_wrap=True)
    if not result.same:
        raise typer.Exit(1)


def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest checkpoints keep their weights.")] = 24,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    json: Json = False,
) -> None:
    """Remove the weights of checkpoints that nothing needs, and the tokens of old calls. Rows of the ledger stay.

    It keeps the newest, those promoted or evaluated best, those that a job or a branch begins at, and their parents.
    The chain's lock is held, so that no training is running. Calls keep their tokens for KEEP_CALL_TOKENS_DAYS.

    Example: [bold]babylon prune --keep 24 --dry-run[/]
    """
    from babylon_assets.training.pruning import prune as remove_weights
    from babylon_assets.training.pruning import prune_calls

    settings = load_settings()
    database = opened(settings)
    done, calls = (
        remove_weights(settings, database, keep, dry_run=dry_run),
        prune_calls(settings, database, dry_run=dry_run),
    )
    checkpoints, size = done.checkpoints, done.size
    for checkpoint in done.elsewhere:
        reason = f"{checkpoint.path} is not its folder in this home, or holds other weights"
        errors.print(
            f"{_name(checkpoint)} is left alone: {reason}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if json:
        print_json(
            {
                "removed": not dry_run,
                "checkpoints": [_name(checkpoint) for checkpoint in checkpoints],
                "bytes": size,
                "calls": calls,
            }
        )
        return
    for checkpoint in checkpoints:
        output.print(f"{_name(checkpoint)}  {checkpoint.path}", highlight=False, soft_wrap=True)
    verb = "would be removed" if dry_run else "removed"
    output.print(f"{format_plural(len(checkpoints), 'checkpoint')}, {size / 2**20:.1f} MiB {verb}")
    if settings.automation.keep_call_tokens_days is not None:
        output.print(f"tokens of {format_plural(calls, 'call')} {verb}")


def forget(
    agent: Annotated[str, typer.Option(help="The agent's id in the game.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it nothing is removed.")] = False,
    json: Json = False,
) -> None:
    """Remove an agent's trajectories, calls, scores and samples from our tables.

    It says which windows held them and which checkpoints saw them.

    The game's own tables are not touched. What they hold of the agent from before this moment is not read again: its
    windows are frozen without it when they are materialized again.

    Example: [bold]babylon forget --agent user-42 --yes[/]
    """
    with opened(load_settings()).connect() as conn:
        policies, windows = ledger.policies_that_saw(conn, agent=agent), ledger.windows_with(conn, agent)
        removed = ledger.forget_agent(conn, agent)
        if not yes:
            conn.rollback()
    if not any(removed.values()):
        raise PermanentError(f"nothing of the agent {agent!r} is in our tables; check the id")
    if json:
        print_json({"removed": yes, "rows": removed, "windows": windows, "seen_by": policies})
        return
    listed = ", ".join(f"{count(number)} {name}" for name, number in removed.items())
    output.print(f"{'removed' if yes else 'would be removed (type --yes)'}: {listed}", soft_wrap=True)
    if windows:
        listed = f"in {format_plural(len(windows), 'window')}: {', '.join(windows)}"
        output.print(listed, highlight=False, soft_wrap=True)
        output.print("run them again (babylon train WINDOW) to freeze them without the agent", soft_wrap=True)
    for name, how in policies.items():
        output.print(f"{name}  {how}", highlight=False, soft_wrap=True)


def _facts(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "policy": _name(checkpoint),
        "id": checkpoint.id,
        "parent": checkpoint.parent_id,
        "window": checkpoint.window_id,
        "dataset": checkpoint.dataset_id,
        "backend": checkpoint.backend,
        "base_model": checkpoint.base_model,
        "path": checkpoint.path,
        "weights": checkpoint.weights_sha256,
    }


def _name(checkpoint: Checkpoint) -> str:
    return policy_name(checkpoint.chain, checkpoint.step)
