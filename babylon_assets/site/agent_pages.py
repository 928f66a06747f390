"""The agents of the newest windows, and the page of one: its reward over windows, its best and its worst answers."""

from __future__ import annotations

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger.agent_rewards import WINDOWS, AgentWindow, list_agents, rewards_by_window
from babylon_assets.ledger.sample_search import samples_of_agent
from babylon_assets.report.learning_curve import CurvePoint, draw_learning_curve
from babylon_assets.report.scales import smoothing_of
from babylon_assets.site.page_shell import Site
from babylon_assets.site.query_values import text_of
from babylon_assets.site.sample_pages import MODES, show

SHOWN = 5
#: Agents of the list; whoever has more looks for a part of a name.
MOST_AGENTS = 200
#: Best and worst are looked for in so many of the agent's newest windows.
LOOKED_AT = 48


def show_agents(site: Site, request: Request) -> Response:
    """The agents of the newest windows, the best rewarded first."""
    text = text_of(request.query_params, "text")
    with site.connect() as conn:
        agents = list_agents(conn, text, MOST_AGENTS)
    return site.render("agents.html", agents=agents, text=text, windows=WINDOWS, most=MOST_AGENTS)


def show_agent(site: Site, request: Request) -> Response:
    """One agent."""
    agent = text_of(request.query_params, "id")
    with site.connect() as conn:
        windows = rewards_by_window(conn, agent)
        if not windows:
            raise PermanentError(f"no window has a reward of the agent {agent[:200]!r}; look for it among the agents")
        known = samples_of_agent(conn, agent, [row.window for row in windows[:LOOKED_AT]])
        environment = site.environment()
        worst = show(site, conn, environment, known[: min(SHOWN, len(known) // 2)])
        best = show(site, conn, environment, known[::-1][: min(SHOWN, (len(known) + 1) // 2)])
    rewards = [row.reward for row in windows if row.reward is not None]
    return site.render(
        "agent.html",
        agent=agent,
        windows=windows,
        mean=sum(rewards) / len(rewards) if rewards else None,
        curves=[("wide", _curve(windows)), ("narrow", _curve(windows, "curve-narrow", 360, 280))],
        span=smoothing_of(len(rewards)),
        best=best,
        worst=worst,
        modes=MODES,
        looked_at=min(LOOKED_AT, len(windows)),
    )


def _curve(windows: list[AgentWindow], name: str = "curve", width: int = 920, height: int = 280) -> Markup:
    """The agent's reward over its windows as markup; a template made it."""
    points = [CurvePoint(row.window, row.reward) for row in reversed(windows) if row.reward is not None]
    return Markup(draw_learning_curve(points, name=name, label="reward", alone=False, width=width, height=height))
