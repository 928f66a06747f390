"""Two policies side by side, on the page and for scripts, and what is forgotten of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.domain.site_links import link_comparison
from babylon_assets.ledger import evaluations, lineage
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.evaluations import Evaluation, keep
from babylon_assets.report.rendering import MISSING
from tests.ledger.values import CHAIN
from tests.site.conftest import Ask
from tests.site.filled_ledger import HOSTILE, WINDOWS, Conn, fill
from tests.site.test_pages import ACTIVE, Seen, rows


def add_prompts(conn: Conn, step: int, rewards: list[float], texts: str = "") -> None:
    """What a checkpoint answered to the prompt of each agent of the first window."""
    names = [f"{texts}t{number}-{WINDOWS[0]}/0/0" for number in range(len(rewards))]
    results: dict[str, Any] = {
        "answers": {
            name: [f"agent-{texts}{number}", WINDOWS[0], reward, reward >= 0]
            for number, (name, reward) in enumerate(zip(names, rewards, strict=True))
        },
        "texts": {name: [f"BUY {texts}", f"answer {number} of {step} {texts}"] for number, name in enumerate(names)},
    }
    measured = Evaluation(
        checkpoint_id=f"{CHAIN}-{step}",
        evaluation="recorded_prompts",
        version="1-same",
        window_id=WINDOWS[0],
        results=results,
    )
    keep(conn, measured)


def test_the_page_has_measurements_kinds_and_prompts(database: Database, client: TestClient) -> None:
    with database.connect() as conn:
        fill(conn)
        add_prompts(conn, 1, [0.0, 0.25, -0.5, 0.5])
        add_prompts(conn, 3, [0.5, 0.25, 0.5, 0.75])
        for step, estimate in ((1, 0.25), (3, 0.5)):
            given: dict[str, Any] = {
                "checkpoint_id": f"{CHAIN}-{step}",
                "evaluation": "off_policy",
                "version": "1",
                "results": {},
            }
            keep(conn, Evaluation(**given, value=estimate))
    text = client.get(link_comparison(f"{CHAIN}@1", f"{CHAIN}@3")).text
    listed = rows(text)
    assert "off policy" not in text  # it has no difference
    assert f"{CHAIN}@3 is clearly better than {CHAIN}@1 by" in " ".join(text.split())
    assert listed[0].startswith(
        f"recorded prompts of windows up to {WINDOWS[0]} {MISSING} {MISSING} 0.4375"
    ) and listed[0].endswith("75.0% 100.0%")
    assert listed[1].startswith("market 0.2250 0.1250 to 0.3250 0.4750 0.3750 to 0.5750")
    assert listed[2].startswith("BUY 4 0.06250 0.5000 0.4375")
    shown = re.findall(r"answer (\d) of (\d)", text)
    assert shown == [("2", "1"), ("2", "3"), ("0", "1"), ("0", "3"), ("3", "1"), ("3", "3")]
    assert "A yes 42" in text


def test_texts_of_others_do_not_act_on_it(database: Database, client: TestClient) -> None:
    with database.connect() as conn:
        fill(conn, HOSTILE)
        add_prompts(conn, 1, [0.0, 0.25], HOSTILE)
        add_prompts(conn, 3, [0.5, -0.25], HOSTILE)
    page = Seen(client.get(link_comparison(f"{CHAIN}@1", f"{CHAIN}@3")).text)
    assert "article" in page.tags
    assert (page.tags & ACTIVE, page.handlers) == (set(), [])


def test_without_policies_it_asks_for_them_and_says_what_is_missing(page: Ask) -> None:
    asked = page("/site/compare")
    assert f'value="{CHAIN}@1"' in asked and f'value="{CHAIN}@3"' in asked  # the served one and its parent
    assert "Choose any two checkpoints" in asked and f'<option value="{CHAIN}@0">' in asked
    asked = page("/site/playground")
    assert f'name="a" list="policies" value="{CHAIN}@3"' in asked
    assert f'name="b" list="policies" value="{CHAIN}@1"' in asked
    unmeasured = page(link_comparison(f"{CHAIN}@1", f"{CHAIN}@3"))
    assert f"babylon compare {CHAIN}@1 {CHAIN}@3" in unmeasured


def test_the_command_prints_the_same_for_people_and_for_scripts(database: Database, tmp_path: Path) -> None:
    with database.connect() as conn:
        fill(conn)
        add_prompts(conn, 1, [0.0, 0.25, -0.5, 0.5])
        add_prompts(conn, 3, [0.5, 0.25, 0.5, 0.75])
    given = {"BABYLON_HOME": str(tmp_path), "DATABASE_URL": database.url, "ENVIRONMENT": "babylon"}
    done = CliRunner().invoke(app, ["compare", f"{CHAIN}@1", f"{CHAIN}@3", "--json"], env=given)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["measured"][0]["difference"]["value"] == 0.4375
    assert facts["measured"][1]["first"] == {"value": 0.225, "low": 0.125, "high": 0.325}
    assert [prompt["first"]["reward"] for prompt in facts["differing"]] == [-0.5, 0.0, 0.5]
    wide = given | {"COLUMNS": "200"}
    told = CliRunner().invoke(app, ["compare", f"{CHAIN}@1", f"{CHAIN}@3"], env=wide).output
    assert "0.4375" in told and "answer 2 of 3" in told
    sentence, where = (
        f"{CHAIN}@3 is clearly better than {CHAIN}@1 by",
        told.partition("Where their answers differ most:"),
    )
    assert told.index(sentence) < told.index("By what the recorded agent did at the prompt:") < len(where[0])
    assert f"agent-2 in {WINDOWS[0]}, step 0; the recorded agent chose BUY" in where[2]
    assert f"recorded prompts of windows up to {WINDOWS[0]}" in " ".join(told.split())
    address = link_comparison(f"{CHAIN}@1", f"{CHAIN}@3")
    assert f"page: http://127.0.0.1:3000{address}, while babylon up runs" in told
    narrow = CliRunner().invoke(app, ["compare", f"{CHAIN}@1", f"{CHAIN}@3"], env=given | {"COLUMNS": "80"}).stdout
    assert max(len(line) for line in narrow.splitlines() if "http" not in line) <= 80, narrow


def test_answers_to_a_forgotten_agents_prompts_are_forgotten(database: Database) -> None:
    with database.connect() as conn:
        fill(conn)
        add_prompts(conn, 1, [0.0, 0.25, -0.5, 0.5])
        assert lineage.forget_agent(conn, "agent-2")["answers"] == 1
        [_, kept] = evaluations.of_checkpoint(conn, f"{CHAIN}-1")
    assert len(kept.results["answers"]) == len(kept.results["texts"]) == 3
    assert "agent-2" not in json.dumps(kept.results)
