"""A checkpoint on the benchmark snapshots of GATE_SNAPSHOTS, put to it in its environment's own prompt form.

Its answers join those to recorded prompts: both policies of a gate are asked the same, with the same random numbers,
and the differences are resampled by the markets that decide them.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.prompt_evaluation import PromptAnswer
from babylon_assets.environments.registry import open_environment
from babylon_assets.evaluation import recorded_prompts
from babylon_assets.evaluation.loaded_policies import load_policy, why_not_loadable
from babylon_assets.evaluation.recorded_prompts import AnsweredPrompt
from babylon_assets.ledger import evaluations
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.evaluations import Evaluation

NAME = "snapshot_prompts"


def snapshot_files(settings: Settings) -> list[Path]:
    """The snapshots that the gate asks, in the order of their names; none where GATE_SNAPSHOTS is not set.

    Raises:
        PermanentError: the folder is not there, or has none.
    """
    if settings.gate.snapshots is None:
        return []
    folder = Path(settings.gate.snapshots)
    files = sorted(folder.glob("*.json"))
    if not files:
        raise PermanentError(f"GATE_SNAPSHOTS is {folder}, where there is no snapshot; put .json files there")
    return files


def measure_snapshots(settings: Settings, database: Database, checkpoint: Checkpoint) -> Evaluation | None:
    """A checkpoint's answers to the snapshots, asked now unless they are kept; None where there is nothing to ask.

    Raises:
        PermanentError: a file is no snapshot, or the environment has none.
    """
    files = snapshot_files(settings)
    if not files:
        return None
    environment = open_environment(settings)
    reader = environment.snapshot_reader
    if reader is None or environment.answers is None:
        raise PermanentError(f"the environment {environment.name} has no snapshots; leave GATE_SNAPSHOTS out")
    contents = [file.read_bytes() for file in files]
    invalid = settings.rewards.invalid_action_reward
    version = content_id(
        [reader.version, environment.answers.version, invalid, [sha256(c).hexdigest() for c in contents]]
    )
    with database.connect() as conn:
        kept = evaluations.get(conn, checkpoint.id, NAME, version)
    if kept is not None or why_not_loadable(settings, checkpoint) is not None:
        return kept
    snapshots = [reader.decode(content) for content in contents]
    asked = [(snapshot, question) for snapshot in snapshots for question in reader.questions(snapshot)]
    texts = recorded_prompts.answer_texts(
        load_policy(settings, checkpoint), [(question.id, question.messages) for _, question in asked]
    )
    answers: dict[str, AnsweredPrompt] = {}
    for (snapshot, question), text in zip(asked, texts, strict=True):
        step = environment.answers.parse(text, question.messages, question.step)
        worth, valid = reader.value(snapshot, question, step)
        answer = PromptAnswer(question.cluster, NAME, worth if valid else invalid, valid)
        answers[question.id] = AnsweredPrompt(answer, environment.describe_action(step), text)
    with database.connect() as conn:
        return evaluations.keep(conn, recorded_prompts.evaluation_of(checkpoint, version, answers, (), NAME))
