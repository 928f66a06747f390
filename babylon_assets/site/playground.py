"""The playground: two policies, one prompt, both answers with the probabilities of their tokens, and their worth.

It asks the gateway, which records what it answers, and is there for whoever sits at this machine alone. A recorded
prompt's answers are valued by the environment's record; nobody can say what an answer to a typed one would be worth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from babylon_assets.domain.display_text import neutralize
from babylon_assets.domain.errors import PermanentError, TransientError
from babylon_assets.domain.prompt_evaluation import PromptPlace
from babylon_assets.domain.site_links import link_playground
from babylon_assets.domain.trajectories import Message, StepFacts
from babylon_assets.ledger.checkpoint_register import newest_names
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.recorded_prompts import RecordedPrompt
from babylon_assets.ledger.sample_search import (
    SampleRow,
    find_sample_of,
    read_sample,
    read_steps_of,
    read_text,
)
from babylon_assets.site.gateway_questions import GatewayAnswer, ask_gateway
from babylon_assets.site.page_shell import Site
from babylon_assets.site.policy_pair import suggest_pair
from babylon_assets.site.query_values import TooLongError, WrongValueError, count_of, number_of, text_of, window_of

#: The longest form: far more than a policy reads.
MOST_BYTES = 1_000_000
MOST_FIELDS = 200
ROLES = ("system", "user", "assistant", "tool")
ANSWER_TOKENS = 256
HOTTEST = 2
#: Forms that wait for the gateway at once, with two questions each: the agents' places are not for people.
ASKED_AT_ONCE = 4
#: How the headers begin by which proxies name themselves, or whom they ask for.
_PROXIES = ("x-forwarded", "forwarded", "x-real-ip", "via")
_BLANK = (Message("system", ""), Message("user", ""))


@dataclass(frozen=True, slots=True)
class RecordedQuestion:
    """A prompt of the record: its sample, its messages, what its own agent did, and answered."""

    row: SampleRow
    messages: Sequence[Message]
    facts: StepFacts | None
    answer: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaygroundQuestion:
    """What a form asks.

    Attributes:
        given: its fields, and what its address says of a recorded prompt.
        messages: the prompt as the form has it.
        recorded: the prompt of the record that the form began with.
        is_recorded: the form's prompt is still that one.
    """

    given: Mapping[str, str]
    policies: Sequence[str]
    messages: Sequence[Message]
    recorded: RecordedQuestion | None
    is_recorded: bool
    seed: int
    temperature: float
    tokens: int
    key: str


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """A policy's answer; without a worth where the record does not say, or the prompt is not of the record."""

    policy: str
    answer: GatewayAnswer
    action: str = ""
    reward: float | None = None
    valid: bool | None = None


def open_playground(site: Site, request: Request) -> Response:
    """The form, with the prompt of a recorded sample where one is named, or an agent and its step."""
    require_here(request)
    given = request.query_params
    with site.connect() as conn:
        if text_of(given, "agent"):
            return _lead_to(site, conn, given)
        recorded = _recorded(site, conn, text_of(given, "window"), text_of(given, "sample"))
        return _page(site, conn, given, recorded, recorded.messages if recorded else _BLANK)


def read_question(site: Site, request: Request, body: bytes) -> PlaygroundQuestion:
    """What the form asks, and whom."""
    fields, messages = read_form(body)
    given = {name: request.query_params[name] for name in ("window", "sample") if name in request.query_params} | fields
    policies = [name for name in (text_of(given, "a"), text_of(given, "b")) if name]
    if not policies:
        raise WrongValueError("no policy is named; choose at least one")
    if not any(message.content for message in messages):
        raise WrongValueError("the prompt is empty; write one, or load a recorded one")
    seed = count_of(given, "seed", 0, 2**31)
    tokens = count_of(given, "tokens", ANSWER_TOKENS, 4096)
    with site.connect() as conn:
        recorded = _recorded(site, conn, text_of(given, "window"), text_of(given, "sample"))
    is_recorded = recorded is not None and _same(site, recorded.messages, messages)
    return PlaygroundQuestion(
        given=given,
        policies=policies,
        messages=messages,
        recorded=recorded,
        is_recorded=is_recorded,
        seed=seed,
        temperature=_temperature_of(given),
        tokens=tokens,
        key=text_of(given, "key"),
    )


def address_of(request: Request, question: PlaygroundQuestion) -> str | None:
    """The address that names the policies that were asked, where the form's own names others; it can be kept."""
    given = (request.query_params, question.given)
    named, asked = ({name: text_of(values, name).strip() for name in ("a", "b")} for values in given)
    if named == asked or not any(named.values()):
        return None
    window, sample = (text_of(question.given, name) for name in ("window", "sample"))
    return link_playground(**asked, window=window, sample=sample)


def _temperature_of(given: Mapping[str, str]) -> float:
    """What is sampled at; 0, which takes the likeliest token, unless it is given."""
    temperature = number_of(given, "temperature") or 0.0
    if not 0 <= temperature <= HOTTEST:
        raise WrongValueError(f"temperature is {temperature:g}; write a number from 0 to {HOTTEST}")
    return temperature


async def ask_policies(site: Site, question: PlaygroundQuestion) -> list[GatewayAnswer]:
    """The policies' answers, in their order; to be cancelled for who has gone away.

    Raises:
        TransientError: as many ask already as may.
    """
    if site.asking >= ASKED_AT_ONCE:
        raise TransientError("the playground asks for others at the moment; try again in a minute")
    site.asking += 1
    recorded = question.recorded if question.is_recorded else None
    ask = partial(
        ask_gateway,
        site.settings.gateway,
        messages=recorded.messages if recorded else question.messages,
        seed=question.seed,
        temperature=question.temperature,
        max_tokens=question.tokens,
        key=question.key,
    )
    try:
        return await asyncio.gather(*(ask(policy) for policy in question.policies))
    finally:
        site.asking -= 1


def show_answers(site: Site, question: PlaygroundQuestion, replies: Sequence[GatewayAnswer]) -> Response:
    """The form, with the answers."""
    shown = [_without_secrets(site, reply) for reply in replies]
    answers = [PolicyAnswer(*pair) for pair in zip(question.policies, shown, strict=True)]
    if question.recorded is not None and question.is_recorded:
        answers = _value(site, question.recorded, answers)
    with site.connect() as conn:
        return _page(site, conn, question.given, question.recorded, question.messages, answers, question.is_recorded)


def _without_secrets(site: Site, reply: GatewayAnswer) -> GatewayAnswer:
    """The answer; without its tokens where they spell a secret, of which each would show a part."""
    spelt = "".join(token.text for token in reply.tokens)
    return reply if site.hide_secrets(spelt) == spelt else reply._replace(tokens=())


def read_form(body: bytes) -> tuple[dict[str, str], list[Message]]:
    """The fields of the form by name, and its messages, which are pairs of a role and a content in their order.

    Raises:
        WrongValueError: it is no form, or a role is none.
    """
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise WrongValueError("the form could not be read; open the playground again") from None
    roles = [value for name, value in pairs if name == "role"]
    contents = [value.replace("\r\n", "\n").replace("\x00", "") for name, value in pairs if name == "content"]
    if len(roles) != len(contents) or not set(roles) <= set(ROLES):
        raise WrongValueError(f"a message has a role that is none; choose among {', '.join(ROLES)}")
    messages = [Message(role, content) for role, content in zip(roles, contents, strict=True)]
    return dict(pairs), [message for message in messages if message.content or message.role == "user"]


def _page(
    site: Site,
    conn: Connection,
    given: Mapping[str, str],
    recorded: RecordedQuestion | None,
    messages: Sequence[Message],
    answers: Sequence[PolicyAnswer] = (),
    is_recorded: bool = True,
    wrong_window: str = "",
) -> Response:
    names = newest_names(conn)
    meant = [*suggest_pair(conn, site.settings.model_name)[::-1], *names]
    a, b = text_of(given, "a"), text_of(given, "b")
    if not answers:
        a = a or next((name for name in meant if name != b), "")
        b = b or next((name for name in meant if name != a), "")
    named = {name: text_of(given, name) for name in ("agent", "step", "window")}
    if recorded is not None:
        named = {"agent": recorded.row.agent_id, "step": str(recorded.row.step), "window": recorded.row.own_window}
    return site.render(
        "playground.html",
        400 if wrong_window else 200,
        named=named,
        wrong_window=wrong_window,
        a=a,
        b=b,
        names=names,
        roles=ROLES,
        messages=messages,
        recorded=recorded,
        is_recorded=is_recorded,
        answers=answers,
        seed=text_of(given, "seed") or "0",
        temperature=f"{_temperature_of(given):g}",
        tokens=text_of(given, "tokens") or str(ANSWER_TOKENS),
        wants_key=bool(site.settings.gateway.keys),
        can_value=site.environment().answers is not None,
    )


def _lead_to(site: Site, conn: Connection, given: Mapping[str, str]) -> Response:
    """To the newest recorded prompt of an agent's step; a window that is none is named beside its field."""
    agent, step = text_of(given, "agent"), count_of(given, "step", 0, 10**6)
    try:
        window = window_of(given, site.settings.windows)
    except WrongValueError as error:
        return _page(site, conn, given, None, _BLANK, wrong_window=str(error))
    row = find_sample_of(conn, agent, step, window)
    if row is None:
        raise PermanentError(f"no recorded prompt is of step {step} of the agent {agent[:200]!r}; try another step")
    policies = {name: text_of(given, name) for name in ("a", "b")}
    return RedirectResponse(link_playground(**policies, window=row.window, sample=row.sample_id), 303)


def _recorded(site: Site, conn: Connection, window: str, sample_id: str) -> RecordedQuestion | None:
    if not sample_id:
        return None
    row = read_sample(conn, window, sample_id)
    exchange = read_text(conn, row) if row else None
    if row is None or exchange is None:
        raise PermanentError(f"the prompt of {sample_id[:200]!r} is not kept any more; choose another")
    facts = read_steps_of(conn, [row.trajectory_id]).get((row.trajectory_id, row.step))
    environment = site.environment()
    site.look_up_names(conn, environment, [facts] if facts else [])
    action = environment.describe_action(facts) if facts else ""
    return RecordedQuestion(row, exchange.messages, facts, exchange.response, action)


def _same(site: Site, recorded: Sequence[Message], asked: Sequence[Message]) -> bool:
    """Whether the prompt is the record's as the form had it: what came back may differ in ends of lines alone."""
    shown = [(message.role, neutralize(site.hide_secrets(message.content))) for message in recorded if message.content]
    kept = [(role, content.replace("\r\n", "\n").strip()) for role, content in shown]
    return kept == [(message.role, message.content.strip()) for message in asked if message.content]


def _value(site: Site, recorded: RecordedQuestion, answers: Sequence[PolicyAnswer]) -> list[PolicyAnswer]:
    """The answers with what each would have done, and been worth."""
    from babylon_assets.evaluation.recorded_prompts import value_answers

    environment = site.environment()
    if recorded.facts is None or environment.answers is None:
        return list(answers)
    prompt = RecordedPrompt(_place_of(recorded.row), list(recorded.messages), recorded.facts)
    valued = []
    for answered in answers:
        if answered.answer.error:
            valued.append(answered)
            continue
        with site.connect_source() as source:
            worths = value_answers(site.settings, source, environment, [prompt], [answered.answer.text])
        (worth,) = worths.values()
        result = worth.answer
        valued.append(PolicyAnswer(answered.policy, answered.answer, worth.action, result.reward, result.valid))
    return valued


def _place_of(row: SampleRow) -> PromptPlace:
    return PromptPlace(
        dataset_id=row.dataset_id,
        window=row.own_window,
        trajectory_id=row.trajectory_id,
        agent_id=row.agent_id,
        step=row.step,
        call=row.call,
        held_out=False,
        recorded_worth=None,
    )


def require_here(request: Request) -> None:
    """Refuse whoever is not at this machine, and what a proxy passes on.

    No browser speaks HTTP/1.0; a proxy may, and says nothing else of itself.

    Raises:
        PermanentError: it comes from elsewhere.
    """
    client = request.client.host if request.client else ""
    passed_on = request.scope.get("http_version") == "1.0" or any(name.startswith(_PROXIES) for name in request.headers)
    if passed_on or not (_is_loopback(client) and _is_loopback(_host_of(request))):
        raise PermanentError("the playground is there for whoever sits at the machine itself; open it on loopback")


def _host_of(request: Request) -> str:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


async def read_body(request: Request) -> bytes:
    """The body of a request, no longer than `MOST_BYTES`.

    Raises:
        TooLongError: it is longer.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise TooLongError(f"the form is longer than {MOST_BYTES:,} bytes; shorten the prompt")
        parts.append(part)
    return b"".join(parts)
