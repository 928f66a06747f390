"""A support desk's log goes through all six assets to a promoted model, which then answers the desk's tickets."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from babylon_assets.cli.list_windows import window_table
from babylon_assets.cli.write_report import gather
from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions
from babylon_assets.domain.errors import SettingsError
from babylon_assets.domain.policies import Caller
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.registry import GROUP, open_environment
from babylon_assets.environments.small_models import ModelRecipe
from babylon_assets.environments.weighted_scorers import check_weights
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.database import Database, migrate
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.ledger.inference_calls import calls_by_id
from babylon_assets.ledger.scores import read_step_scores
from babylon_assets.ledger.windows import get_window, list_windows
from babylon_assets.orchestration.assets.raw_trajectories import read
from babylon_assets.orchestration.assets.scored_trajectories import score
from babylon_assets.orchestration.assets.training_datasets import freeze
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime.line import Line
from babylon_assets.report.page import render_page
from babylon_assets.serving.client import GatewayPolicy
from babylon_assets.serving.engine.engine import Library
from tests.environments import support_desk
from tests.environments.desk_shifts import AGENTS, ANSWER_TOKENS, draw_ticket, make_model, prompt, work
from tests.environments.support_desk import SCHEMA, SupportDesk
from tests.gateways import RunningGateway, embedded, wait_for

FILE = Path(support_desk.__file__)
PAGE = Path(__file__).parents[2] / "docs" / "environments.md"
[WINDOW] = HOURLY.closed(datetime.now(UTC), 1)
ASSETS = (
    *("raw_trajectories", "scored_trajectories", "training_datasets"),
    *("model_checkpoints", "checkpoint_evaluations", "promoted_model"),
)
TICKETS = 6
#: Words of the game and its market, which mean nothing at a support desk.
MARKET = re.compile(
    r"\b(the game|markets?|held-out market|oracle|trades?|traded|trades_\w+|market_\w+)\b", re.IGNORECASE
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment as an installed package has it: by an entry point."""
    package = tmp_path / "site" / "support_desk-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: support-desk\nVersion: 1.0\n")
    point = f"support_desk = {SupportDesk.__module__}:{SupportDesk.__name__}"
    (package / "entry_points.txt").write_text(f"[babylon_assets.environments]\n{point}\n")
    monkeypatch.syspath_prepend(package.parent)


@pytest.fixture(scope="module")
def writes_letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that writes the desk's letters."""
    recipe = ModelRecipe(vocabulary=700, hidden=64, feed_forward=128, steps=60, batch=16, learning_rate=1e-2)
    return make_model(tmp_path_factory.mktemp("desk") / "base", recipe)


@pytest.fixture
def settings(tmp_path: Path, installed: None, writes_letters: Path, desk: Database) -> Settings:
    return Settings(
        home=tmp_path / "home",
        database_url=desk.url,
        environment="support_desk",
        base_model=str(writes_letters),
        scorers=("tests.environments.brevity:brevity",),
        reward_weights={"outcome": 1.0, "promptness": 0.1, "brevity": 0.1},
        min_samples_per_window=4,
        lora_rank=4,
        held_out_share=0.0,
    )


@pytest.fixture
def desk(database: Database) -> Database:
    with database.connect() as conn:
        conn.execute(SCHEMA.encode())
    return database


def test_the_rows_of_the_page_are_a_window_to_train_on(settings: Settings, desk: Database) -> None:
    [rows] = re.findall(r"```sql\n(\s+INSERT INTO desk.tickets.*?)```", PAGE.read_text(), flags=re.DOTALL)
    with desk.connect() as conn:
        conn.execute(rows.encode())
    migrate(desk)
    usual = settings.replace(min_samples_per_window=Settings().datasets.min_samples_per_window, scorers=())
    usual = usual.replace(reward_weights=Settings().rewards.weights, held_out_share=0.15)
    installation = Installation(usual, desk)
    [window] = HOURLY.closed(datetime.now(UTC), 1)
    for make in (read, score, freeze):
        make(installation, window)
    with desk.connect() as conn:
        row = get_window(conn, window)
        components = [scored for _, _, scored in read_step_scores(conn, window).values()]
    assert row is not None and row.status == "ready", row
    assert {name for scored in components for name in scored} == {"outcome"}
    assert check_weights(usual) == "outcome 1; support_desk has no heuristic, set REWARD_WEIGHTS for more"
    with pytest.raises(SettingsError, match="REWARD_WEIGHTS names no scorer: heuristic"):
        score(Installation(usual.replace(reward_weights={"outcome": 1.0, "heuristic": 0.2}), desk), window)


def test_the_package_of_the_page_installs_the_environment() -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    package = tomllib.loads(textwrap.dedent(text))
    assert package["project"]["entry-points"][GROUP] == {"support_desk": f"support_desk:{SupportDesk.__name__}"}
    assert package["tool"]["setuptools"]["py-modules"] == [FILE.stem]
    assert package["build-system"]["build-backend"] == "setuptools.build_meta"


@contextmanager
def serving(settings: Settings, database: Database) -> Iterator[RunningGateway]:
    library = Library(Path(settings.training.base_model or ""), kept=2)
    with RunningGateway(settings, database, embedded(library, settings)) as gateway:
        yield gateway


def test_an_entry_point_is_all_that_makes_it_known(settings: Settings) -> None:
    assert isinstance(open_environment(settings), SupportDesk)


def test_letters_become_a_promoted_model_that_answers_the_next_tickets(settings: Settings, desk: Database) -> None:
    with serving(settings, desk) as gateway, GatewayPolicy(gateway.url, "babylon-agent@0") as policy:
        with desk.connect() as conn:
            work(conn, WINDOW, policy, TICKETS)
        wait_for(lambda: _recorded(desk) == TICKETS * len(AGENTS))
        assert _materialized(settings, desk) == set(ASSETS)
        assert not MARKET.findall(_pages(settings, desk))
        made = _trained_and_promoted(desk)
        _answers_by_the_promoted_model(gateway, policy, desk, made.step)


def _materialized(settings: Settings, desk: Database) -> set[str]:
    """Run the line; which assets of the window it made."""
    with dg.DagsterInstance.ephemeral() as instance:
        Line(build_definitions(settings, installation=Installation(settings, desk)), instance).materialize(WINDOW)
        [run] = instance.get_runs()
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
        shown = [event.event_specific_data for event in events if event.is_step_event]
        assert not MARKET.findall("\n".join(map(repr, shown)))
        return {name for name in ASSETS if WINDOW in instance.get_materialized_partitions(dg.AssetKey(name))}


def _pages(settings: Settings, desk: Database) -> str:
    """What `babylon windows` and `babylon report` show of the desk's window."""
    with desk.connect() as conn:
        table = window_table(list(list_windows(conn)), {})
    assert "reward" in [column.header for column in table.columns]
    page = render_page(replace(gather(settings, desk, datetime.now(UTC)), guides={}))
    assert "What was understood" in page
    spoken = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return "\n".join([*(str(column.header) for column in table.columns), spoken])


def test_the_pages_of_a_desk_have_no_word_of_the_market(installed: None) -> None:
    definitions = build_definitions(Settings(environment="support_desk"))
    graph = definitions.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        *ASSETS,
        "record/trajectories",
        "record/outcomes",
    }
    automation = [*(definitions.sensors or ()), *(definitions.schedules or ())]
    told = [each.description or "" for each in (*definitions.resolve_all_asset_specs(), *automation)]
    told += [str(check.description) for assets in graph.assets_defs for check in assets.check_specs]
    assert [text for text in told if MARKET.search(text)] == []


def _trained_and_promoted(desk: Database) -> checkpoints.Checkpoint:
    with desk.connect() as conn:
        row, made = get_window(conn, WINDOW), promotions.promoted(conn, "babylon-agent")
        assert row is not None and made is not None
        dataset = load_dataset(conn, row.dataset_id or "")
    assert (row.status, row.trajectories, row.agents) == ("trained", TICKETS * len(AGENTS), len(AGENTS))
    taught = [sample for sample in dataset.samples if sample.trains_as == "policy_gradient"]
    assert len(taught) > TICKETS
    tickets = {(sample.trajectory_id.rpartition("/")[0], sample.group) for sample in taught}
    assert len(tickets) == len({ticket for ticket, _ in tickets}) == len({group for _, group in tickets})
    assert all(800 < sum(len(each.content) for each in sample.messages) < 1200 for sample in taught)
    written = [1 - len(sample.response.strip()) / 2000 for sample in taught]
    assert [sample.components["brevity"] for sample in taught] == pytest.approx(written)
    assert made.metrics["trained_tokens"] == sum(len(sample.token_ids or ()) for sample in taught) > 1000
    return made


def _answers_by_the_promoted_model(gateway: RunningGateway, policy: GatewayPolicy, desk: Database, step: int) -> None:
    wait_for(lambda: (served := gateway.parts.directory.served) and served.stable.name == f"babylon-agent@{step}")
    policy.name = f"babylon-agent@{step}"
    ticket = draw_ticket(np.random.default_rng(5), "new", datetime.now(UTC))
    [answer] = policy.ask(
        [prompt(ticket)], [1], [Caller("amira", "new", 0, ticket.opened_at)], max_tokens=ANSWER_TOKENS
    )
    assert step == 1 and len(answer.text) > 100
    wait_for(lambda: _recorded_step(desk, answer.call_id or "") == step)


def _recorded(desk: Database) -> int:
    with desk.connect() as conn:
        row = conn.execute("SELECT count(*) FROM babylon_training.inference_calls").fetchone()
    return int(row[0]) if row else 0


def _recorded_step(desk: Database, call_id: str) -> int | None:
    with desk.connect() as conn:
        found = calls_by_id(conn, [call_id]).get(call_id)
    return None if found is None else found.policy_step


def test_the_page_shows_the_whole_file_and_it_is_short() -> None:
    text = FILE.read_text()
    shown = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    sections = [part for part in re.split(r"^# -- .*\n+", text, flags=re.MULTILINE) if part.strip()]
    assert [part.strip() for part in shown] == [part.strip() for part in sections], "copy the file's sections"
    assert text.count("\n") <= 200


def test_the_scorer_of_the_page_on_rewards_is_the_one_that_was_run() -> None:
    example = (FILE.parent / "brevity.py").read_text().partition("\n\n")[2]
    assert example in (PAGE.parent / "rewards.md").read_text()
