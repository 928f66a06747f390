"""What every page of the site is made with: the settings, a read-only connection, and templates that escape all.

A page asks for nothing but the site's one stylesheet: its content security policy forbids scripts and foreign requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, Response

from babylon_assets.config.settings import HIDDEN, Settings, secrets_of
from babylon_assets.domain.display_text import neutralize, shorten
from babylon_assets.domain.errors import TransientError
from babylon_assets.domain.site_links import LINKS
from babylon_assets.ledger.database import Connection, Database
from babylon_assets.report.rendering import LONGEST, MISSING, make_environment

if TYPE_CHECKING:
    from jinja2 import Environment as Templates

    from babylon_assets.domain.trajectories import StepFacts
    from babylon_assets.environments.base import Environment

#: Characters of an answer or a prompt that a page shows; the file of the sample has all of them.
LONGEST_TEXT = 40_000
#: How long a question to the database may take before the page says so.
STATEMENT_MS = 10_000
#: Pages that are made at once; more of them wait, and leave the threads to the application beside them.
PAGES_AT_ONCE = 4
#: A shorter secret would blot out words.
_SHORTEST_SECRET = 6
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class WholeText(str):
    """A text that a page shows up to `LONGEST_TEXT`, in place of the few hundred characters of a cell."""

    __slots__ = ()


class FormText(WholeText):
    """A text in a form or an address, which comes back whole."""

    __slots__ = ()


@dataclass
class Site:
    """What the pages share.

    Attributes:
        open_database: opens the ledger's database; called at the first page that is asked for.
        beside_dagster: whether Dagster's UI is at the same address, to be linked to.
        places: one for each page that may be made at once.
        asking: forms of the playground that wait for the gateway now.
    """

    settings: Settings
    open_database: Callable[[], Database]
    beside_dagster: bool = False
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PAGES_AT_ONCE))
    asking: int = 0

    @cached_property
    def database(self) -> Database:
        return self.open_database()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection that reads as of one moment, writes nothing, and waits for no question longer than 10 s."""
        with self.database.connect() as conn:
            _only_read(conn)
            yield conn

    @contextmanager
    def connect_source(self) -> Iterator[Connection]:
        """As `connect`, to the database of the environment's tables."""
        with self.database.connect_source() as conn:
            _only_read(conn)
            yield conn

    def environment(self) -> Environment:
        """The environment, whose words the actions are told in."""
        from babylon_assets.environments.registry import open_environment

        return open_environment(self.settings)

    def look_up_names(self, conn: Connection, environment: Environment, steps: Iterable[StepFacts]) -> None:
        """As `Environment.look_up_names`; a database of the environment that does not answer costs the names alone."""
        if not self.database.is_apart:
            environment.look_up_names(conn, steps)
            return
        with suppress(TransientError), self.connect_source() as source:
            environment.look_up_names(source, steps)

    def render(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page."""
        return HTMLResponse(self.render_part(template, **values).encode("utf-8", "replace"), status)

    def render_part(self, template: str, **values: Any) -> str:
        """A template as a text, which may be a part of a page."""
        return self._templates.get_template(template).render(values)

    def hide_secrets(self, text: str) -> str:
        """The text without the values of secret settings, should an agent have come to know one."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    @cached_property
    def _secrets(self) -> list[str]:
        return [secret for secret in secrets_of(self.settings) if len(secret) >= _SHORTEST_SECRET]

    @cached_property
    def _templates(self) -> Templates:
        templates = make_environment(self._printable, "babylon_assets.site")
        templates.globals |= {"chain": self.settings.model_name, "missing": MISSING}
        templates.globals["beside_dagster"] = self.beside_dagster
        templates.globals |= {name: _uncut(link) for name, link in LINKS.items()}
        templates.filters |= {
            "whole": WholeText,
            "form_text": FormText,
            "excerpt": self._excerpt,
            "sentence": _begin_sentence,
        }
        return templates

    def _excerpt(self, text: str) -> str:
        """The beginning of a text on one line, for a cell; a secret is hidden before it could be cut."""
        return " ".join(self.hide_secrets(text)[:1000].split())[:240]

    def _printable(self, value: object) -> object:
        """What is printed of a value: markup as it is, nothing for None, any other text harmless and bounded."""
        if value is None:
            return ""
        if hasattr(value, "__html__"):
            return value
        if isinstance(value, FormText):
            return neutralize(self.hide_secrets(value))
        longest = LONGEST_TEXT if isinstance(value, WholeText) else LONGEST
        return neutralize(shorten(self.hide_secrets(str(value)), longest))


def _only_read(conn: Connection) -> None:
    """Let the connection write nothing and wait for no question longer than `STATEMENT_MS`."""
    from babylon_assets.environments.base import read_at_one_moment

    read_at_one_moment(conn)
    conn.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}".encode())


def _uncut(link: Callable[..., str]) -> Callable[..., str]:
    """The same link, which no length cuts: another address would be another page."""
    return lambda *names, **wanted: FormText(link(*names, **wanted))


def can_measure(environment: Environment) -> bool:
    """Whether the environment measures a policy, by a benchmark of its own or by answers to recorded prompts."""
    return environment.benchmark is not None or environment.answers is not None


def _begin_sentence(text: str) -> str:
    """The text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def read_stylesheet() -> str:
    """The report's colours, shapes and charts, and what the site has besides."""
    from importlib.resources import files

    report, own = files("babylon_assets.report") / "templates", files("babylon_assets.site") / "templates"
    sheets = [report / "palette.css", report / "page.css", report / "charts.css", own / "site.css"]
    return "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
