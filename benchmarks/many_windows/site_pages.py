"""The pages of the local site that are asked, each under the name of what a person looks at."""

from __future__ import annotations

from babylon_assets.domain.site_links import (
    SITE,
    link_agent,
    link_checkpoint,
    link_comparison,
    link_playground,
    link_report,
    link_sample,
    link_samples,
)
from babylon_assets.ledger.database import Connection

_SAMPLE = """
SELECT window_id, sample_id, agent_id, step FROM babylon_training.windows
JOIN babylon_training.training_dataset_samples USING (dataset_id)
WHERE window_id = (SELECT max(window_id) FROM babylon_training.windows) AND reward IS NOT NULL
ORDER BY sample_id LIMIT 1"""
_POLICIES = """
SELECT chain || '@' || step, window_id FROM babylon_training.model_checkpoints WHERE rejected IS NULL AND step > 0
ORDER BY step DESC"""
_OLDEST = "SELECT min(window_id) FROM babylon_training.windows"
_LAST_PAGE = "SELECT (count(*) - 1) / 50 FROM babylon_training.model_checkpoints"


def list_pages(conn: Connection) -> dict[str, str]:
    """The address of each page in a home."""
    window, sample, agent, step = conn.execute(_SAMPLE).fetchall()[0]
    (newest, _), (before, _), *_, (oldest, _) = conn.execute(_POLICIES).fetchall()
    ((first,),) = conn.execute(_OLDEST)
    ((last_page,),) = conn.execute(_LAST_PAGE)
    return {
        "first page: the register": f"{SITE}/",
        "the register, its last page": f"{SITE}/?page={last_page}",
        "the register, served before": f"{SITE}/?state=served+before",
        "a checkpoint, the newest": link_checkpoint(newest),
        "a checkpoint, the oldest": link_checkpoint(oldest),
        "samples": link_samples(),
        "the newest window": link_samples(window=window),
        "the oldest window": link_samples(window=first),
        "samples of an agent": link_samples(agent=agent),
        "samples of nobody": link_samples(agent="nobody"),
        "a text that is found": link_samples(text="filing"),
        "a text that is not found": link_samples(text="no such words"),
        "a reward that none has": link_samples(least=1000.0),
        "a sample": link_sample(window, sample),
        "agents": f"{SITE}/agents",
        "an agent that is found": f"{SITE}/agents?text={agent[-3:]}",
        "an agent": link_agent(agent),
        "compare, the form": f"{SITE}/compare",
        "compare": link_comparison(before, newest),
        "playground": link_playground(),
        "playground, a recorded prompt": link_playground(window=window, sample=sample),
        "playground, by agent and step": f"{SITE}/playground?agent={agent}&step={step}",
        "report": link_report(),
    }
