"""A ledger for the site's pages: checkpoints in every state, samples of several agents, hostile texts in each field."""

from __future__ import annotations

from typing import Any

import pandas as pd
import psycopg

from babylon_assets.domain.trajectories import Message, RawSample
from babylon_assets.environments.babylon.details import make_step
from babylon_assets.ledger.checkpoints import Checkpoint, insert_checkpoint, reject
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.evaluations import Evaluation, keep
from babylon_assets.ledger.promotions import promote
from babylon_assets.ledger.scores import ScorerNote, replace_scores
from babylon_assets.ledger.trajectories import replace_window
from babylon_assets.ledger.verdicts import StoredVerdict, store_verdict
from babylon_assets.ledger.windows import upsert_window
from tests.ledger.values import CHAIN, checkpoint, dataset, record, root, sample

Conn = psycopg.Connection[Any]
#: What an attacker writes into every field that is his: a database holds all of it but NUL.
HOSTILE = (
    "<script>alert('1')</script><img src=https://evil.example/x onerror=alert(2)>\"' & \u202ereversed \x07\x1b[31m"
    "</pre></table>[x](javascript:alert(3)){{ 7*7 }}"
)
LONG = "long " * 200_000
WINDOWS = [f"2026-11-05T{hour:02d}:00" for hour in range(10, 17)]

#: The tokens of a training whose pass ended early.
EARLY_END = {"trained_tokens": 5051, "undone_tokens": 1270, "unseen_tokens": 1209}


def add_window(
    conn: Conn, window: str, *, agents: int = 4, names: str = "agent-", texts: str = "", spoken: str = ""
) -> str:
    """A window whose agents all answer one decision point, the later ones better; returns its dataset's id."""
    records, samples, scores = [], [], []
    for number in range(agents):
        name, agent = f"{texts}t{number}-{window}", f"{names}{number}"
        answer = f'{{"action":"buy","note":"{texts or "plain"} {number}"}}{spoken}'
        prompt = [Message("system", f"Trade. {texts}"), Message("user", f"A yes {40 + number} {texts}{spoken}")]
        step = make_step(
            0, 1, 1, 1.0, 0.0, f"BUY {texts}", "prediction", f"m{texts}", None, "yes", 25.0, True, texts or None, False
        )
        asked = RawSample(0, 0, f"c{number}", f"{CHAIN}@1", 1.0, None, prompt, answer)
        records.append(record(number, window=window, trajectory_id=name, agent_id=agent, samples=[asked], facts=[step]))
        skipped = number == 0
        samples.append(
            sample(
                number,
                sample_id=f"{name}/0/0",
                window=window,
                trajectory_id=name,
                agent_id=agent,
                group=f"{window}/{texts}1",
                messages=prompt,
                response=answer,
                policy=f"{CHAIN}@1",
                reward=number / 4,
                advantage=None if skipped else number / 4 - 0.5,
                trains_as="skip" if skipped else "policy_gradient",
                skip_reason=f"held out{texts}" if skipped else None,
            )
        )
        scores.append([window, name, agent, 0, "final", number / 4, number / 4, number / 4, True])
    replace_window(conn, window, records, [])
    columns = ["window", "trajectory_id", "agent_id", "step", "state", "worth", "outcome", "reward", "final"]
    notes = {("outcome", str(row[1])): ScorerNote(f"because {texts}", None) for row in scores}
    replace_scores(conn, window, pd.DataFrame(scores, columns=columns), {"outcome": "1"}, notes=notes)
    frozen = dataset(*samples, window=window)
    save_dataset(conn, frozen)
    upsert_window(conn, window, status="trained", trajectories=agents, dataset_id=frozen.id, reward_mean=0.375)
    return frozen.id


def fill(conn: Conn, texts: str = "") -> None:
    """A chain of five checkpoints, one in each state, over the windows."""
    frozen = [add_window(conn, window, texts=texts, names=f"agent-{texts}") for window in WINDOWS]
    made = [root(base_model=f"small {texts}")]
    insert_checkpoint(conn, made[0])
    for step, parent in ((1, 0), (2, 1), (3, 1), (4, 3), (5, 3)):
        made.append(
            checkpoint(
                step,
                WINDOWS[step - 1],
                frozen[step - 1],
                parent_id=made[parent].id,
                metrics={"loss": 0.123456789, f"n{texts}": 1, **(EARLY_END if step == 3 else {})},
                settings={f"s{texts}": texts, **({"reward_weights": {"outcome@1": 0.5}} if step == 3 else {})},
                path=f"/somewhere {texts}",
            )
        )
        insert_checkpoint(conn, made[step])
        if step == 2:
            reject(conn, made[2].id, f"refused: it is worse {texts}")
        elif step < 5:
            promote(conn, made[step], kind="promotion", by=f"gate{texts}", why=f"better {texts}")
        if step == 4:
            promote(conn, made[3], kind="rollback", by="ada", why=f"it lost money {texts}")
    _judge(conn, made[2], False, texts)
    _judge(conn, made[3], True, texts)
    for step, member in enumerate(made):
        measured = Evaluation(
            checkpoint_id=member.id,
            evaluation=f"market{texts}",
            version="1",
            value=0.1 + step / 8,
            low=step / 8,
            high=0.2 + step / 8,
            results={"valid_share": 0.98765, "advantage": 1234.5678, "refused": texts or None},
        )
        keep(conn, measured)


def _judge(conn: Conn, member: Checkpoint, passed: bool, texts: str) -> None:
    finding = {"rule": "window", "words": f"its loss is finite {texts}", "holds": passed}
    verdict = {"findings": [finding], "rules": {}}
    stored = StoredVerdict(
        checkpoint_id=member.id, chain=CHAIN, champion_id=None, passed=passed, why=texts, verdict=verdict
    )
    store_verdict(conn, stored)
