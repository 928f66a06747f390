"""What the pages show, what they refuse, and that no text of others acts in them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import DatabaseUnavailable
from babylon_assets.domain.site_links import (
    link_agent,
    link_card,
    link_checkpoint,
    link_comparison,
    link_report,
    link_sample,
    link_samples,
)
from babylon_assets.domain.token_counts import explain_early_end
from babylon_assets.environments.registry import open_environment
from babylon_assets.ledger.adapter_weights import WEIGHTS
from babylon_assets.ledger.checkpoint_register import count_states, read_register
from babylon_assets.ledger.checkpoints import get as get_checkpoint
from babylon_assets.ledger.checkpoints import insert_checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.evaluations import Evaluation, keep
from babylon_assets.ledger.lineage import ancestors
from babylon_assets.ledger.promotions import promote
from babylon_assets.ledger.sample_search import SampleFilter, stream_samples
from babylon_assets.report.page import render_page
from babylon_assets.site.application import make_site
from babylon_assets.site.page_shell import Site, read_stylesheet
from babylon_assets.site.sample_pages import show
from babylon_assets.training.model_cards import write_card
from tests.ledger.values import CHAIN, checkpoint, root
from tests.report.values import full
from tests.site.conftest import Ask
from tests.site.filled_ledger import EARLY_END, HOSTILE, LONG, WINDOWS, add_window, fill

ACTIVE = {"script", "iframe", "object", "embed", "base", "img", "style"}


class Seen(HTMLParser):
    """The elements, the addresses and the handlers of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action", "formaction")]


def rows(text: str) -> list[str]:
    """The rows of the tables of a page, as words."""
    bodies = re.findall(r"<tbody>(.*?)</tbody>", text, re.DOTALL)
    lines = [row for body in bodies for row in re.findall(r"<tr.*?>(.*?)</tr>", body, re.DOTALL)]
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", line)).split()) for line in lines]


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Every question to the database."""
    asked: list[object] = []

    def counting(ask: Any) -> Any:
        def count(cursor: Any, query: Any, *given: Any, **named: Any) -> Any:
            asked.append(query)
            return ask(cursor, query, *given, **named)

        return count

    with monkeypatch.context() as patch:
        for name in ("execute", "stream", "copy"):
            patch.setattr(psycopg.Cursor, name, counting(getattr(psycopg.Cursor, name)))
        yield asked


def test_the_register_shows_every_checkpoint_with_its_state(filled: Database, page: Ask) -> None:
    with filled.connect() as conn:
        states = {row.step: row.state for row in read_register(conn)}
        counts = count_states(conn)
    assert states == {
        0: "base model",
        1: "served before",
        2: "rejected",
        3: "served",
        4: "rolled back",
        5: "no verdict",
    }
    assert list(counts) == ["served", "served before", "rejected", "rolled back", "no verdict", "base model"]
    listed = rows(page("/site/"))
    assert len(listed) == 6
    (served,) = (row for row in listed if f"{CHAIN}@3 served" in row)
    assert "0.4750 0.3750 to 0.5750 98.8% " + f"{CHAIN}@1 {WINDOWS[2]} 0.3750" in served
    assert len(rows(page("/site/?state=rejected"))) == 1


def test_a_state_has_one_name_wherever_it_is_shown(filled: Database, page: Ask, tmp_path: Path) -> None:
    given = {"BABYLON_HOME": str(tmp_path), "DATABASE_URL": filled.url, "ENVIRONMENT": "babylon"}
    told = json.loads(CliRunner().invoke(app, ["chains", "--json"], env=given).stdout)
    with filled.connect() as conn:
        assert {row["id"]: row["state"] for row in told} == {row.id: row.state for row in read_register(conn)}
    for row in told:
        heading = re.search("<h1>(.*?)</h1>", page(link_checkpoint(row["policy"])))
        assert heading is not None and f">{row['state']}<" in heading[1]


def test_a_checkpoint_has_its_verdict_its_evaluations_and_its_family(page: Ask) -> None:
    text = page(link_checkpoint(f"{CHAIN}@3"))
    assert f'<p class="hint">A{explain_early_end(EARLY_END)[1:]}.</p>' in text
    assert "MAX_KL" not in page(link_checkpoint(f"{CHAIN}@1"))
    for part in (
        "all 1 rules hold",
        "1,235",
        "5,051 tokens trained",
        "<dt>trained tokens</dt><dd>5,051</dd>",
        "Scorers: outcome v1.",
        "<dt>reward weights</dt><dd>outcome@1 0.5</dd>",
        "better",
        f"{CHAIN}@1",
        f"{CHAIN}@4",
        f"{CHAIN}@5",
        "0.1235",
        "share of the oracle&#39;s reward 1,235",
        "<dd>0.3750<small>by whoever answered there</small>",
        "Rewards did not apply: too few actions of the window have a known worth.",
    ):
        assert part in text, part
    begun = page(link_checkpoint(f"{CHAIN}@0"))
    assert "reward of its window" not in begun and "<dt>dataset</dt>" not in begun
    assert "Rejected: it is worse" in page(link_checkpoint(f"{CHAIN}@2"))
    assert page(link_checkpoint(f"{CHAIN}-3")).count(f"{CHAIN}@3") > 1  # by its id as well


def test_the_model_card_of_a_checkpoint_is_shown_and_no_other_file(
    database: Database, client: TestClient, tmp_path: Path
) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    with database.connect() as conn:
        fill(conn, HOSTILE)
        conn.execute(
            "UPDATE babylon_training.model_checkpoints SET path = %s WHERE id = %s", [str(tmp_path), f"{CHAIN}-3"]
        )
        member = get_checkpoint(conn, f"{CHAIN}-3")
        assert member is not None
        card = write_card(conn, member)
    assert card is not None
    with card.open("a", encoding="utf-8") as file:
        file.write(f"\n{HOSTILE} <b>bold</b> a-secret-that-must-not-show\n")
    policy, text = f"{CHAIN}@3", client.get(link_card(f"{CHAIN}@3")).text
    assert f'<a href="{link_card(policy)}">Model card</a>' in client.get(link_checkpoint(policy)).text
    assert "<h3>What was measured</h3>" in text and "<td>trained tokens</td>\n<td>5,051</td>" in text
    assert "library_name" not in text and "must-not-show" not in text and "&lt;b&gt;bold" in text
    seen = Seen(text)
    assert (seen.tags & ACTIVE, seen.handlers, "b" in seen.tags) == (set(), [], False)
    assert "Model card" not in client.get(link_checkpoint(f"{CHAIN}@1")).text
    assert client.get(link_card(f"{CHAIN}@1")).status_code == client.get(link_card(f"{CHAIN}@0")).status_code == 404
    card.unlink()
    card.symlink_to("/etc/passwd")
    assert client.get(link_card(policy)).status_code == 404


def test_of_many_evaluations_the_newest_are_shown_and_the_rest_counted(database: Database, client: TestClient) -> None:
    with database.connect() as conn:
        fill(conn)
        for number in range(200):
            window = f"2026-10-{1 + number // 24:02d}T{number % 24:02d}:00"
            measured = Evaluation(
                checkpoint_id=f"{CHAIN}-1", evaluation="off_policy", version=window, window_id=window, results={}
            )
            keep(conn, measured)
            keep(conn, replace(measured, checkpoint_id=f"{CHAIN}-3"))
            if number < 48:
                keep(conn, replace(measured, checkpoint_id=f"{CHAIN}-3", evaluation="recorded_prompts"))
        older = "UPDATE babylon_training.checkpoint_evaluations SET created_at = created_at - interval '1 day'"
        conn.execute(f"{older} WHERE evaluation = 'recorded_prompts'".encode())
        conn.execute("UPDATE babylon_training.windows SET reward_mean = 0.5")
        odd = {"valid_share": True, "huge": 10**400}
        keep(conn, Evaluation(checkpoint_id=f"{CHAIN}-3", evaluation="odd", version="1", value=1.0, results=odd))
    assert client.get("/site/").status_code == client.get(link_checkpoint(f"{CHAIN}@3")).status_code == 200
    text = client.get(link_checkpoint(f"{CHAIN}@1")).text
    assert text.count('<th scope="row">off policy<') == 167
    assert text.index('<th scope="row">market<') < text.index("<summary>167 off-policy estimates</summary>")
    assert "33 older evaluations are left out" in text
    again = client.get(link_checkpoint(f"{CHAIN}@3")).text
    assert again.index('<th scope="row">market<') < again.index("<summary>26 earlier evaluations</summary>")
    assert "<summary>118 off-policy estimates</summary>" in again  # however much newer they are
    assert "0.3750 when trained, 0.5000 now" in again
    assert "windows up to 2026-10-02T23:00" in again and "A dash as the window: it is measured on no window" in again


def test_samples_are_filtered_by_all_that_is_said_of_them(page: Ask) -> None:
    wanted: list[tuple[dict[str, Any], int]] = [
        ({}, 28),
        ({"window": WINDOWS[0]}, 4),
        ({"agent": "agent-1"}, 7),
        ({"mode": "skip"}, 7),
        ({"reason": "held out"}, 7),
        ({"least": 0.5, "most": 0.5}, 7),
        ({"policy": f"{CHAIN}@1", "window": WINDOWS[1]}, 4),
        ({"text": "PLAIN 2"}, 7),
        ({"text": "a yes 43"}, 7),
        ({"action": "buy"}, 28),
        ({"action": "sell"}, 0),
        ({"text": "plain 2", "agent": "agent-1"}, 0),
    ]
    assert [len(rows(page(link_samples(**filters)))) for filters, _ in wanted] == [count for _, count in wanted]


def test_a_policy_that_is_not_there_is_said_to_be_unknown(page: Ask) -> None:
    assert "names no checkpoint" in page(link_samples(policy="babylon-agent@99"))
    assert "names no checkpoint" not in page(link_samples(policy="babylon-agent@1", agent="nobody"))


def test_a_search_goes_on_where_its_page_ended(page: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("babylon_assets.site.sample_pages.PAGE_ROWS", 3)
    for start in (link_samples(), link_samples(text="plain", most=0.5)):
        address: str | None = start
        seen: list[str] = []
        while address is not None:
            text = page(address)
            seen += re.findall(r'href="(/site/sample\?[^"]+)"', text)
            assert ("the first 3 samples" in text) == (address == start), "a page's size is not the number found"
            onward = re.search(r'rel="next" href="([^"]+)"', text)
            address = unescape(onward[1]) if onward else None
        assert len(seen) == len(set(seen)) == (28 if start == link_samples() else 21)


def test_a_page_costs_what_it_shows_whatever_the_length_of_the_record(
    database: Database, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 windows: the first page reads one of them, and a search that finds nothing ends at its bound."""
    with database.connect() as conn:
        frozen = add_window(conn, "2026-11-05T14:00", agents=60)
        conn.execute(
            "INSERT INTO babylon_training.windows (window_id, status, dataset_id) "
            "SELECT to_char(timestamp '2026-01-01' + n * interval '1 hour', 'YYYY-MM-DD\"T\"HH24:00'), 'trained', %s "
            "FROM generate_series(1, 2000) AS n ON CONFLICT DO NOTHING",
            [frozen],
        )
    monkeypatch.setattr("babylon_assets.site.sample_pages.MOST_LOOKED_AT", 600)
    assert "50 looked at" in client.get("/site/samples").text.replace("50 samples looked at", "50 looked at")
    some = client.get("/site/samples?text=plain+7").text
    assert f"{len(rows(some))} samples so far, looked down to window 2026-" in some and "the first" not in some
    nothing = client.get("/site/samples?text=nowhere").text
    looked_at = re.search(r"None of the (\d+) samples", nothing)
    assert looked_at is not None
    assert 600 <= int(looked_at[1]) <= 800
    assert client.get("/site/agents").text.count("<tr>") == 61


def test_an_agent_of_one_old_window_is_found_without_reading_the_others(
    database: Database, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.connect() as conn:
        add_window(conn, "2025-12-31T14:00", agents=1, names="rare-")
        conn.execute(
            "INSERT INTO babylon_training.windows (window_id, status, dataset_id) "
            "SELECT to_char(timestamp '2026-01-01' + n * interval '1 hour', 'YYYY-MM-DD\"T\"HH24:00'), 'trained', %s "
            "FROM generate_series(1, 500) AS n",
            [add_window(conn, "2026-01-01T00:00")],
        )
    with counted(monkeypatch) as asked:
        assert len(rows(client.get(link_samples(agent="rare-0")).text)) == 1
    assert len(asked) < 12


def test_texts_and_actions_of_many_datasets_are_one_question_each(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged trajectory has neither; those beside it have both."""
    with database.connect() as conn:
        fill(conn)
        for table, column in (("raw_trajectories", "body"), ("training_dataset_trajectories", "chat")):
            query = f"UPDATE babylon_training.{table} SET {column} = %s WHERE trajectory_id = %s"
            conn.execute(query.encode(), [b"no zstd", f"t3-{WINDOWS[0]}"])
        conn.commit()
        kept = [row for batch in stream_samples(conn, SampleFilter()) for row in batch.rows]
        with counted(monkeypatch) as asked:
            settings = Settings(environment="babylon")
            shown = show(Site(settings, lambda: database), conn, open_environment(settings), kept)
    assert len(asked) == 3  # and what there is of the game's tables: markets have questions there
    bare = [sample.row.sample_id for sample in shown if not sample.action and not sample.answer]
    assert bare == [f"t3-{WINDOWS[0]}/0/0"]
    assert sum("BUY" in sample.action and "plain" in sample.answer for sample in shown) == 27


def test_a_long_reason_can_be_opened(database: Database, client: TestClient) -> None:
    reason = " ".join(["reason"] * 100)
    with database.connect() as conn:
        fill(conn, reason)
    assert f"its loss is finite {reason}</div>" in client.get(link_checkpoint(f"{CHAIN}@3")).text
    assert f"it is worse {reason}</div>" in client.get(link_checkpoint(f"{CHAIN}@2")).text
    assert f"because {reason}</div>" in client.get(link_sample(WINDOWS[0], f"{reason}t3-{WINDOWS[0]}/0/0")).text


def test_a_sample_is_shown_in_full_with_its_reward_and_its_neighbours(page: Ask) -> None:
    text = page(link_sample(WINDOWS[0], f"t3-{WINDOWS[0]}/0/0"))
    listed = rows(text)
    assert "outcome version 1 0.7500 1.000 0.7500 because" in listed
    assert [row.split()[0] for row in listed[-4:]] == ["0.7500", "0.5000", "0.2500", "0.000"]
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)(?:<small|</dd>)", text))
    assert (facts["reward"], facts["baseline"], facts["advantage"]) == ("0.7500", "0.5000", "0.2500")
    assert "A yes 43" in text
    assert 'aria-current="true"' in text


def test_an_agent_has_its_rewards_and_its_best_and_worst_answers(page: Ask) -> None:
    text = page(link_agent("agent-3"))
    assert "Mean reward 0.7500 over 7 windows" in text
    assert text.count("<svg") == 2
    captions = re.findall("<caption>(.*?)</caption>", text)
    assert len(set(captions)) == len(captions) == 3, captions
    listed = rows(page("/site/agents"))
    assert [row.split()[:2] for row in listed] == [
        ["agent-3", "0.7500"],
        ["agent-2", "0.5000"],
        ["agent-1", "0.2500"],
        ["agent-0", "0.000"],
    ]
    assert len(rows(page("/site/agents?text=NT-2"))) == 1


def pages_of(text: str) -> list[str]:
    """Every address of the site that a page links to."""
    return [unescape(found) for found in re.findall(r'(?:href|action)="(/site[^"]*)"', text)]


def test_no_text_of_others_acts_on_any_page(database: Database, client: TestClient) -> None:
    """Each page that can be reached from the first, with an attacker's text in every field that is his."""
    with database.connect() as conn:
        fill(conn, HOSTILE)
    waiting, seen = ["/site/"], set[str]()
    kinds: dict[str, int] = {}
    while waiting:
        address = waiting.pop()
        kind = re.split(r"[?@]", address)[0]
        if address in seen or kinds.get(kind, 0) >= 6:
            continue
        seen.add(address)
        kinds[kind] = kinds.get(kind, 0) + 1
        reply = client.get(address)
        assert reply.status_code == 200, (address, reply.text)
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", reply.text)
        if not reply.headers["content-type"].startswith("text/html"):
            continue
        page = Seen(reply.text)
        assert page.tags & ACTIVE == set()
        assert page.handlers == []
        assert [address for address in page.addresses if not address.startswith(("/site", "#", "data:,"))] == []
        waiting += pages_of(reply.text)
    assert {"/site/", "/site/sample", "/site/agent", "/site/samples", "/site/sample.txt"} <= set(kinds)


def test_a_text_of_a_megabyte_is_cut_on_the_page_and_whole_in_its_file(database: Database, client: TestClient) -> None:
    secret = "a-secret-that-must-not-show"
    with database.connect() as conn:
        add_window(conn, WINDOWS[0], agents=2, spoken=f"{LONG}{secret} the end")
    address = link_sample(WINDOWS[0], f"t1-{WINDOWS[0]}/0/0")
    page, whole = client.get(address).text, client.get(address.replace("/sample?", "/sample.txt?"))
    assert len(page) < 120_000
    assert "(1,000," in page
    assert whole.headers["content-type"].startswith("text/plain")
    assert whole.text.endswith("hidden the end") or " the end" in whole.text[-40:]
    assert secret not in page + whole.text
    assert len(client.get("/site/samples").text) < 20_000


WRONG = [
    ("/site/checkpoints/nobody@3", 404, "names no checkpoint"),
    ("/site/checkpoints/%00@1", 404, "names no checkpoint"),
    ("/site/checkpoints/nobody@" + "9" * 5000, 400, "at most 2,000"),
    ("/site/sample?window=2026-11-05T14:00&id=x/0/0", 404, "has no sample"),
    ("/site/sample", 404, "has no sample"),
    ("/site/agent?id=nobody", 404, "no window has a reward"),
    ("/site/samples?least=much", 400, "write a number such as 0.5"),
    ("/site/samples?mode=magic", 400, "choose among policy_gradient"),
    ("/site/samples?after=x/y", 400, "begin the search again"),
    ("/site/?page=-1", 400, "write a whole number"),
    ("/site/nowhere", 404, "The site has no page"),
    ("/site/samples?text=" + "x" * 3000, 400, "at most 2,000"),
    ("/site/samples", 200, "There is no sample. Type"),
    ("/site/agents", 200, "No agent has a reward yet"),
    ("/site/", 200, "There is no checkpoint yet"),
    ("/site/samples?window=2026-11-05T14:30", 400, "'2026-11-05T14:30' is not a window"),
]


def test_what_is_not_there_is_said_with_what_to_do(client: TestClient) -> None:
    for address, status, says in WRONG:
        reply = client.get(address)
        text = unescape(re.sub(r"<[^>]+>", "", reply.text))
        assert (reply.status_code, says in text) == (status, True), (address, text)


def test_a_database_without_our_tables_is_no_error(empty_database: Database) -> None:
    asked = TestClient(make_site(Settings(environment="babylon"), lambda: empty_database))
    assert "Nothing is in the ledger yet" in asked.get("/site/").text
    assert "Nothing is in the ledger yet" in asked.get("/site/samples").text


def test_a_database_that_is_gone_is_said(database: Database) -> None:
    def refuse() -> Database:
        raise DatabaseUnavailable("PostgreSQL does not answer; start it")

    reply = TestClient(make_site(Settings(environment="babylon"), refuse)).get("/site/")
    assert (reply.status_code, "PostgreSQL does not answer" in reply.text) == (503, True)


def test_a_long_line_of_checkpoints_costs_no_more_questions(
    database: Database, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = []
    with database.connect() as conn:
        line = [root()]
        insert_checkpoint(conn, line[0])
        for length in (3, 12):
            while len(line) < length:
                window = f"2026-11-05T{len(line):02d}:00"
                line.append(checkpoint(len(line), window, add_window(conn, window), parent_id=line[-1].id))
                insert_checkpoint(conn, line[-1])
            promote(conn, line[-1], by="gate", why="better")
            conn.commit()
            assert [row.id for row in ancestors(conn, line[-1])] == [row.id for row in line[-2::-1]]
            with counted(monkeypatch) as asked:
                for path in ("/site/", "/site/compare", link_checkpoint(f"{CHAIN}@{length - 1}")):
                    assert client.get(path).status_code == 200
            costs.append(len(asked))
    assert costs[0] == costs[1]


def test_the_report_is_there_once_it_was_written(filled: Database, tmp_path: Path) -> None:
    settings = Settings(environment="babylon", home=tmp_path)
    client = TestClient(make_site(settings, lambda: filled), base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    missing = client.get(link_report())
    assert "No report was written yet" in missing.text
    assert f'href="{link_report()}"' in missing.text
    (tmp_path / "report.html").write_bytes(b"<title>\xff</title>")
    assert client.get(link_report()).text.endswith("<title>\N{REPLACEMENT CHARACTER}</title>")
    (tmp_path / "report.html").write_text("<title>it</title><body>\n<header>\n<h1>", encoding="utf-8")
    there = client.get(link_report())
    assert there.text.startswith('<title>it</title><body>\n<header>\n<p class="muted">This report was written at ')
    assert there.text.endswith("</p>\n<h1>")
    assert "default-src 'none'" in there.headers["content-security-policy"]
    assert "form-action 'none'" in there.headers["content-security-policy"]
    assert "script-src" not in there.headers["content-security-policy"]


def test_the_links_of_the_report_lead_to_where_the_site_and_dagster_are_now(filled: Database, tmp_path: Path) -> None:
    """It was written while both had another port."""
    written = render_page(replace(full(), ui="http://127.0.0.1:3480"))
    (tmp_path / "report.html").write_text(written, encoding="utf-8")
    settings = Settings(environment="babylon", home=tmp_path, dagster_port=3501)
    for beside, dagster in ((True, "/"), (False, "http://127.0.0.1:3501/")):
        client = TestClient(make_site(settings, lambda: filled, beside_dagster=beside), client=("127.0.0.1", 1))
        links = re.findall(r'href="([^"#]+)"', client.get(link_report()).text)
        assert len(links) > 50
        assert {link for link in links if not link.startswith((f"{dagster}assets/", "/site/"))} == {dagster}
    assert written.count('href="http://127.0.0.1:3480') > 50  # as a file it keeps full addresses


def test_the_report_is_said_to_be_old_where_the_ledger_changed_since(filled: Database, tmp_path: Path) -> None:
    """It says itself when it was written; the file may be a copy."""
    settings = Settings(environment="babylon", home=tmp_path)
    client = TestClient(make_site(settings, lambda: filled), base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    assert " was written at" not in client.get("/site/").text
    path = tmp_path / "report.html"
    for moment, said in ((datetime(2020, 1, 2, 3, 4, tzinfo=UTC), True), (datetime(2100, 1, 1, tzinfo=UTC), False)):
        path.write_text(render_page(replace(full(), made_at=moment)), encoding="utf-8")
        for address in ("/site/", link_report()):
            text = client.get(address).text
            assert f" was written at {moment:%Y-%m-%d %H:%M} UTC." in text
            assert ("Since then 6 checkpoints were made and 7 windows changed. <code>babylon report" in text) == said
    asked = TestClient(make_site(settings, _refuse), base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    assert "This report was written at 2100-01-01 00:00 UTC. <a" in asked.get(link_report()).text
    path.write_text("<body></body>", encoding="utf-8")
    os.utime(path, (0, 0))
    assert "This report was written at 1970-01-01 00:00 UTC." in client.get(link_report()).text


def _refuse() -> Database:
    raise DatabaseUnavailable("PostgreSQL does not answer; start it")


def headings(text: str) -> list[str]:
    return [unescape(heading) for heading in re.findall(r'<th scope="col"[^>]*>(.*?)</th>', text)]


def test_columns_without_anything_in_them_are_left_out(database: Database, client: TestClient) -> None:
    with database.connect() as conn:
        fill(conn)
        full = {name: headings(client.get(name).text) for name in ("/site/", link_checkpoint(f"{CHAIN}@3"))}
        assert {"reward", "interval", "valid", "reward there"} <= set(full["/site/"])
        conn.execute("DELETE FROM babylon_training.checkpoint_evaluations")
        conn.execute("UPDATE babylon_training.trajectory_scores SET reasoning = NULL")
        conn.commit()
    text = client.get("/site/").text
    assert set(full["/site/"]) - set(headings(text)) == {"reward", "interval", "valid"}
    assert "No reward is shown: none of these checkpoints was evaluated yet." in text
    assert len(rows(text)[0].split()) < 20 and "Reward there: the mean reward of the window" in text
    unmeasured = TestClient(make_site(Settings(environment="files"), lambda: database), base_url="http://127.0.0.1")
    assert "this environment evaluates no policy by itself" in unmeasured.get("/site/").text
    assert "why" not in headings(client.get(link_sample(WINDOWS[0], f"t3-{WINDOWS[0]}/0/0")).text)


def test_the_columns_of_tables_are_explained(page: Ask) -> None:
    said = {
        "/site/": ("when it was evaluated (market), with its 95% interval", "Valid: the share", "Reward there: the"),
        "/site/samples": ("Advantage: the reward less the mean", "A late answer is in the dataset of a later window"),
        "/site/agents": ("Reward: the mean reward",),
        link_agent("agent-3"): ("Advantage: the reward less the mean", "Reward: the mean reward"),
        link_checkpoint(f"{CHAIN}@3"): ("Valid: the share",),
        link_comparison(f"{CHAIN}@1", f"{CHAIN}@3"): ("Valid: the share",),
    }
    assert [(path, words) for path, each in said.items() for words in each if words not in page(path)] == []


def test_the_neighbours_are_counted_as_they_are_listed(page: Ask) -> None:
    text = page(link_sample(WINDOWS[0], f"t3-{WINDOWS[0]}/0/0"))
    assert f"4 answers of the group {WINDOWS[0]}/1, this one among them." in text
    assert "3 of these are compared with each other" in text


@pytest.mark.parametrize(
    ("address", "leads_to"),
    [
        ("/site/agent?id=nobody", ("/site/agents", "All agents")),
        ("/site/sample?window=x&id=x/0/0", ("/site/samples", "All samples")),
        ("/site/checkpoints/nobody@3", ("/site/", "All checkpoints")),
        ("/site/nowhere", ("/site/", "All checkpoints")),
    ],
)
def test_a_page_that_is_not_there_leads_to_its_kind(
    client: TestClient, address: str, leads_to: tuple[str, str]
) -> None:
    assert '<a href="{}">{}</a></p>'.format(*leads_to) in client.get(address).text


def test_nothing_moves_on_a_page() -> None:
    """Whoever asks for reduced motion is given none; the report has the same sheets."""
    assert not re.search("transition|animation|scroll-behavior", read_stylesheet())


def test_a_policy_that_nothing_can_measure_is_sent_nowhere(filled: Database) -> None:
    settings = Settings(environment="files")
    client = TestClient(make_site(settings, lambda: filled), base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    text = client.get(link_comparison(f"{CHAIN}@1", f"{CHAIN}@5")).text
    assert "babylon compare" not in text
    assert "cannot say what an answer" in text
