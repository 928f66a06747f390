"""Customers and agents of the support desk: tickets, an hour of replies to them, and a small model that writes letters.

The model is taught with letters whose first word is right in a part of the cases, so that ratings differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from psycopg.types.json import Jsonb

from babylon_assets import Connection, Message, ModelRecipe, make_small_model
from babylon_assets.domain.policies import Caller, RecordingPolicy
from babylon_assets.domain.windows import HOURLY
from tests.environments.support_desk import ACTIONS, parse_action

AGENTS = ("amira", "bela", "chidi", "dana", "elif", "farid")
ANSWER_TOKENS = 320
HANDBOOK = """You answer customers of a shop that sells lamps, kettles and radios by post.
Begin with what you decided, in brackets, and then write the letter. You may decide one of four things.
Refund: the parcel was lost on its way, or the customer sent the goods back within thirty days of buying them.
Replace: the goods came broken, or stopped working within two years, and the customer still wants to have them.
Explain: nothing is wrong with the goods, and the customer only needs to be told how they are to be used.
Escalate: somebody was hurt, or a lawyer has written, or the customer asks for the third time about the same thing.
Be kind, be short, promise nothing that is not in this handbook, and sign with the name of the desk."""
#: What customers write, by what is right to do.
COMPLAINTS = {
    "refund": "the parcel with my {goods} never came. The post says that it was lost, and will not be found",
    "replace": "my {goods} came broken. One side of it is bent, and it does not work at all, whatever I try with it",
    "explain": "I cannot find out how my {goods} is switched on. The sheet in the box is in a language I do not know",
    "escalate": "my {goods} caught fire and my hand was burnt. This is the third time that I write to you about it",
}
LETTERS = {
    "refund": "we are sorry that your {goods} never reached you. We have sent your money back today, all of it, what "
    "you paid for the post included. It will be on your account in five days, and you need not do anything for it",
    "replace": "we are sorry that your {goods} is not as it should be. We have sent you a new one today, by the fast "
    "post, and it will be with you in five days. Please keep the broken one until then, and give it to the driver",
    "explain": "thank you for asking about your {goods}. There is a small switch under the foot, easy to miss. "
    "Press it for three seconds, until a green light comes on. A sheet in your language is on its way to you",
    "escalate": "we are very sorry for what happened with your {goods}. A person who may decide about such cases has "
    "your letter now, and will call you before the evening. Please do not use it any more, and keep it as it is",
}
CLOSING = """We know that you chose us because you trust us, and we would like to keep it so. If anything else is not as
you expected, write to us again and name the number of your ticket, so that we find your letters at once. The shop is
open every day from eight until eight, and somebody who can help you is always there. If you were content with this
letter, a word about it helps those who write after you, and it helps us to learn what we should do better next time.
With kind regards, the desk"""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A customer's letter, and what is right to do about it."""

    id: str
    opened_at: datetime
    body: str
    right: str


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What an agent saw, and what it is shown to answer."""

    messages: Sequence[Message]
    answer: str


def draw_ticket(rng: np.random.Generator, name: str, opened_at: datetime) -> Ticket:
    right, goods = str(rng.choice(ACTIONS)), str(rng.choice(("lamp", "kettle", "radio")))
    said = COMPLAINTS[right].format(goods=goods)
    body = f"Dear desk, I bought a {goods} from you in the spring and now {said}. What will you do about it? Yours"
    return Ticket(name, opened_at, body, right)


def prompt(ticket: Ticket) -> list[Message]:
    return [Message("system", HANDBOOK), Message("user", ticket.body)]


def letter(action: str, body: str) -> str:
    """A whole answer, about 1 KB of it."""
    goods = next(word for word in ("lamp", "kettle", "radio") if word in body)
    return f"[{action}] Dear customer, {LETTERS[action].format(goods=goods)}. {CLOSING}"


def make_model(folder: Path, recipe: ModelRecipe) -> Path:
    """A model that writes letters; what they decide is right somewhat more often than by chance."""
    rng = np.random.default_rng(recipe.seed)
    demonstrations = []
    for _ in range(recipe.steps * recipe.batch):
        ticket = draw_ticket(rng, "", datetime.min)
        action = ticket.right if rng.random() < 0.4 else str(rng.choice(ACTIONS))
        demonstrations.append(Demonstration(prompt(ticket), letter(action, ticket.body)))
    folder.mkdir(parents=True)
    make_small_model(recipe, demonstrations, folder)
    return folder


def work(conn: Connection, window: str, policy: RecordingPolicy, count: int) -> None:
    """An hour at the desk: every ticket is answered by all agents, and their customers rate the replies."""
    start = HOURLY.parse(window).start
    rng = np.random.default_rng(int(start.timestamp()))
    opened = [draw_ticket(rng, f"{window}/{n}", start + timedelta(minutes=5 * n)) for n in range(count)]
    asked = [(ticket, agent) for ticket in opened for agent in AGENTS]
    callers = [Caller(agent, f"{ticket.id}/{agent}", 0, ticket.opened_at) for ticket, agent in asked]
    conversations = [prompt(ticket) for ticket, _ in asked]
    said = policy.ask(conversations, range(len(asked)), callers, max_tokens=ANSWER_TOKENS)
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO desk.tickets VALUES (%s, %s, %s)", [(t.id, t.opened_at, t.body) for t in opened]
        )
        for (ticket, agent), answer in zip(asked, said, strict=True):
            seen = Jsonb([{"role": each.role, "content": each.content} for each in prompt(ticket)])
            name, at = f"{ticket.id}/{agent}", ticket.opened_at + timedelta(minutes=1)
            reply = (name, ticket.id, agent, at, policy.name, answer.call_id, seen, answer.text.replace("\0", "\ufffd"))
            cursor.execute("INSERT INTO desk.replies VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", reply)
            stars = 5 if parse_action(answer.text) == ticket.right else int(rng.integers(1, 3))
            cursor.execute("INSERT INTO desk.ratings VALUES (%s, %s, %s)", (name, stars, at + timedelta(minutes=3)))
