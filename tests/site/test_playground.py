"""The playground over a real gateway: both answers with their tokens, their worth by the record, and who may ask."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from starlette.testclient import TestClient

from babylon_assets.config.settings import Settings
from babylon_assets.domain.site_links import link_sample
from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.simulated.players import play_window
from babylon_assets.evaluation.side_by_side import measure_both
from babylon_assets.ledger import evaluations, lineage
from babylon_assets.ledger.checkpoint_register import RegisteredCheckpoint, read_register
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.evaluations import COMPARED
from babylon_assets.ledger.trajectories import replace_window
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.orchestration.ui_guard import UiGuard
from babylon_assets.serving.engine.engine import Library
from babylon_assets.site.application import make_site
from babylon_assets.site.gateway_questions import gateway_url
from tests.browser import AXE, Browser, accessibility_faults, chromium
from tests.environments.simulated.test_players import FIRST, Follower, records
from tests.gateways import Chain, RunningGateway, embedded, wait_for
from tests.ledger.values import dataset, sample
from tests.servers import Server
from tests.site.conftest import served
from tests.site.filled_ledger import HOSTILE, WINDOWS, fill
from tests.site.test_pages import ACTIVE, Seen

HERE = "http://127.0.0.1:3000"


@dataclass
class Playground:
    """A played window in the ledger, a gateway of two policies over it, and the site."""

    client: TestClient
    database: Database
    gateway: RunningGateway
    settings: Settings
    agent: str
    window: str = FIRST

    def ask(self, messages: list[tuple[str, str]], **fields: str) -> str:
        pairs = [*fields.items(), *(pair for role, text in messages for pair in (("role", role), ("content", text)))]
        reply = self.client.post("/site/playground", content=urlencode(pairs), headers=FORM)
        assert reply.status_code == 200, reply.text
        return str(reply.text)


FORM = {"content-type": "application/x-www-form-urlencoded"}
BOTH = {"a": "babylon-agent@1", "b": "babylon-agent@2", "tokens": "8"}


@pytest.fixture(scope="module")
def playground(
    server: Server, played: str, tiny_base: Path, tiny_library: Library, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Playground]:
    tmp_path, name = tmp_path_factory.mktemp("playground"), server.create(played)
    game_database = server.database(name)
    settings = Settings(home=tmp_path / "home", environment="simulated", simulation_seed=3)
    with game_database.connect() as conn:
        play_window(settings, conn, FIRST, Follower())
    episodes = records(game_database, FIRST)
    shown = episodes[0]
    kept = [
        sample(
            sample_id=f"{shown.trajectory_id}/{spoken.step}/0",
            window=FIRST,
            group=f"{FIRST}/1",
            trajectory_id=shown.trajectory_id,
            agent_id=shown.agent_id,
            step=spoken.step,
            messages=spoken.messages,
            response=spoken.response,
        )
        for spoken in shown.samples
    ]
    frozen = dataset(*kept, window=FIRST)
    with game_database.connect() as conn:
        replace_window(conn, FIRST, episodes, [])
        save_dataset(conn, frozen)
        upsert_window(conn, FIRST, status="ready", dataset_id=frozen.id)
    chain = Chain(game_database, tiny_base, tmp_path)
    chain.add(1)
    chain.add(2)
    chain.promote(2)
    with RunningGateway(settings, game_database, embedded(tiny_library, settings)) as gateway:
        asking = settings.replace(gateway_port=gateway.port)
        client = TestClient(make_site(asking, lambda: game_database), base_url=HERE, client=("127.0.0.1", 1))
        yield Playground(client, game_database, gateway, asking, shown.agent_id)
    server.drop(name)


def test_both_policies_answer_a_recorded_prompt_and_the_record_values_it(playground: Playground) -> None:
    opened = playground.client.get(f"/site/playground?a=babylon-agent@1&agent={playground.agent}&step=2").text
    (action,) = re.findall(r'action="([^"]+)" method="post"', opened)
    hidden = dict(parse_qsl(urlsplit(unescape(action)).query))
    texts = [unescape(text) for text in re.findall(r"<textarea[^>]*>\n(.*?)</textarea>", opened, re.DOTALL)]
    messages = list(zip(("system", "user"), texts, strict=True))
    assert (hidden["window"], hidden.pop("a"), hidden.pop("b")) == (FIRST, BOTH["a"], BOTH["b"]) and "news" in texts[1]
    sent = [(role, text.replace("\n", "\r\n")) for role, text in messages]  # as a browser sends it
    page = playground.ask(sent, **BOTH, **hidden)
    assert page.count('<span class="p') == 8 + 8 + 4  # and the legend's
    assert page.count("-0.5000") == 2 and page.count(">invalid<") == 2  # they have learned nothing
    assert "was changed" not in page and "none invalid" not in page
    changed = playground.ask([(role, text + "!") for role, text in messages], **BOTH, **hidden)
    assert "was changed" in changed and "-0.5000" not in changed
    assert playground.ask(sent, **BOTH, **hidden) == page  # the same seed, the same answers
    wait_for(lambda: asked_by_the_playground(playground.database) == 6)
    assert 'name="temperature" type="number" min="0" max="2" step="any" value="0"' in opened
    assert "the gateway records what is asked here" in opened and "writes nothing" not in opened
    other = playground.ask(sent, **BOTH, **hidden, seed="7")
    assert "likeliest token each time" in page and answers_of(other) == answers_of(page)  # no seed draws anything
    drawn = [playground.ask(sent, **BOTH, **hidden, seed=seed, temperature="1") for seed in ("0", "7")]
    assert "drawn at temperature 1" in drawn[0] and answers_of(drawn[0]) != answers_of(drawn[1])
    swapped = urlencode([("a", BOTH["b"]), ("b", BOTH["a"]), ("tokens", "1"), ("role", "user"), ("content", "x")])
    moved = playground.client.post(unescape(action), content=swapped, headers=FORM)
    assert [reply.status_code for reply in moved.history] == [307]  # the address names those that were asked
    assert {**hidden, "a": BOTH["b"], "b": BOTH["a"]} == dict(parse_qsl(moved.url.query.decode()))
    assert "What they answer" in moved.text
    hot = playground.client.post(
        "/site/playground", content=urlencode({**BOTH, "role": "user", "content": "x", "temperature": "3"})
    )
    assert (hot.status_code, "from 0 to 2" in hot.text) == (400, True)


def test_the_step_of_a_window_is_not_that_of_a_late_sample_it_carries(database: Database, client: TestClient) -> None:
    late, own = WINDOWS[0], WINDOWS[1]
    samples = [
        sample(
            sample_id=f"{trajectory}/0/0", trajectory_id=trajectory, agent_id="a", window=window, group=f"{window}/1"
        )
        for window, trajectory in ((late, "t-0"), (own, "t-1"))
    ]
    with database.connect() as conn:
        fill(conn)
        for window, members in ((late, samples[:1]), (own, samples)):
            frozen = dataset(*members, window=window)
            save_dataset(conn, frozen)
            upsert_window(conn, window, status="trained", dataset_id=frozen.id)
    for asked, trajectory in (("", "t-1"), (own, "t-1"), (late, "t-0")):
        page = client.get(f"/site/playground?agent=a&step=0&window={asked}")
        assert f"sample={trajectory}" in str(page.url)
        assert f'name="window" value="{asked or own}" placeholder' in page.text
        policies = re.findall(r'name="[ab]" list="policies" value="([^"]+)"', page.text)
        assert policies == ["babylon-agent@3", "babylon-agent@1"]  # what is served, and its parent
    refused = client.get("/site/playground?agent=a&step=3&window=14:30")
    assert refused.status_code == 400 and 'name="step" type="number" min="0" value="3"' in refused.text
    beside = r'name="window" value="14:30"[^>]*aria-describedby="wrong-window"></label>\s*<p [^>]*role="alert">([^<]+)'
    assert [unescape(said).split(";")[0] for said in re.findall(beside, refused.text)] == ["'14:30' is not a window"]
    shown = client.get(link_sample(own, "t-0/0/0")).text
    assert "late, with" in shown and f"<title>a in {late}" in shown


def answers_of(page: str) -> list[str]:
    """What both policies said."""
    return [re.sub(r"<[^>]+>", "", text) for text in re.findall(r'<pre class="tokens".*?</pre>', page, re.DOTALL)]


def asked_by_the_playground(database: Database) -> int:
    query = "SELECT count(*) FROM babylon_training.inference_calls WHERE agent_id = 'site-playground'"
    with database.connect() as conn:
        row = conn.execute(query).fetchone()
    return int(row[0]) if row else 0


def test_a_typed_prompt_is_answered_and_what_cannot_be_asked_is_said(playground: Playground) -> None:
    page = playground.ask([("system", ""), ("user", f"{HOSTILE} news")], **BOTH)
    assert "The probability of each token" in page
    assert (Seen(page).tags & ACTIVE, Seen(page).handlers) == (set(), [])
    unknown = playground.ask([("user", "news")], a="babylon-agent@77", b="", tokens="8")
    assert "does not have babylon-agent@77" in unknown or "refused" in unknown
    empty = playground.client.post("/site/playground", content=urlencode(BOTH), headers=FORM)
    assert (empty.status_code, "the prompt is empty" in empty.text) == (400, True)
    wrong = playground.client.post("/site/playground", content=urlencode({**BOTH, "role": "x", "content": "y"}))
    assert wrong.status_code == 400
    long = playground.client.post("/site/playground", content=b"content=" + b"x" * 1_000_001)
    assert long.status_code == 413


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no chromium: apt-get install chromium")
def test_answers_can_be_read_on_a_phone_and_by_everybody(playground: Playground) -> None:
    app = UiGuard(make_site(playground.settings, lambda: playground.database), {}, ())
    with served(app) as address, Browser(1280, 900) as browser:
        browser.open(f"{address}/site/playground?a=babylon-agent@1&agent={playground.agent}&step=2", "The whole sample")
        browser.run("document.querySelector('[name=tokens]').value = 8")
        browser.run("document.querySelector('form.asked [name=a]').value = 'babylon-agent@2'")
        browser.press("Enter", "form.asked button")
        browser.wait_for("The probability of each token")
        assert "a=babylon-agent%402&b=babylon-agent%402&" in browser.run("location.search")
        browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
        for mode, width in (("light", 1280), ("dark", 360)):
            browser.prefer(mode)
            browser.resize(width, 900)
            assert browser.run("document.documentElement.scrollWidth") <= width
            assert not AXE.is_file() or accessibility_faults(browser) == []


def test_a_comparison_is_kept_under_its_mark_and_changes_no_reward(playground: Playground, tiny_base: Path) -> None:
    def ledger() -> tuple[list[RegisteredCheckpoint], dict[str, float]]:
        with playground.database.connect() as conn:
            return read_register(conn), evaluations.read_rewards(conn)

    with playground.database.connect() as conn:
        chain = playground.settings.model_name
        pair = [replace(lineage.find(conn, BOTH[name], chain), base_model=str(tiny_base)) for name in ("a", "b")]
    before = ledger()
    assert measure_both(playground.settings, playground.database, pair[0], pair[1], 3) == ""
    with playground.database.connect() as conn:
        kept = [row for policy in pair for row in evaluations.of_checkpoint(conn, policy.id)]
    assert [(row.evaluation, row.version.startswith(COMPARED)) for row in kept] == [("recorded_prompts", True)] * 2
    assert kept[0].version == kept[1].version and None not in (kept[0].value, kept[1].value)
    assert ledger() == before  # so `babylon chains` and the site show what they showed


def test_it_is_there_for_who_sits_at_the_machine_alone(playground: Playground) -> None:
    site = make_site(playground.settings, lambda: playground.database)
    guarded = UiGuard(site, {}, ["babylon.example"])
    elsewhere = [
        TestClient(guarded, base_url=HERE, client=("192.0.2.7", 1)),
        TestClient(guarded, base_url="http://babylon.example", client=("127.0.0.1", 1)),
        TestClient(guarded, base_url=HERE, client=("127.0.0.1", 1), headers={"x-forwarded-for": "192.0.2.7"}),
        TestClient(guarded, base_url=HERE, client=("127.0.0.1", 1), headers={"via": "1.1 proxy"}),
    ]
    for client in elsewhere:
        replies = [client.get("/site/playground"), client.post("/site/playground", content=urlencode(BOTH))]
        assert [reply.status_code for reply in replies] == [404, 404]
        assert client.get("/site/samples").status_code == 200
    here = TestClient(guarded, base_url=HERE, client=("127.0.0.1", 1))
    assert here.get("/site/playground").status_code == 200
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert here.post("/site/playground", content=urlencode(BOTH), headers=foreign).status_code == 403


def test_a_gateway_that_is_not_there_is_said(playground: Playground) -> None:
    asking = playground.settings.replace(gateway_port=9)
    client = TestClient(make_site(asking, lambda: playground.database), base_url=HERE, client=("127.0.0.1", 1))
    pairs = [*BOTH.items(), ("role", "user"), ("content", "news")]
    assert "Start it with babylon up or babylon serve" in client.post("/site/playground", content=urlencode(pairs)).text


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("10.0.0.7", "10.0.0.7")],
)
def test_the_gateway_is_asked_where_it_listens(host: str, url: str) -> None:
    assert gateway_url(Settings(gateway_host=host).gateway) == f"http://{url}:8000/v1"


def test_messages_come_from_the_form_in_their_order() -> None:
    from babylon_assets.site.playground import read_form

    body = urlencode(
        [("a", "x"), ("role", "system"), ("content", "one\r\ntwo"), ("role", "user"), ("content", "three")]
    )
    assert read_form(body.encode()) == (
        {"a": "x", "role": "user", "content": "three"},
        [Message("system", "one\ntwo"), Message("user", "three")],
    )
