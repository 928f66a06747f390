"""Which base models the hosted service trains: asked of the service, with a file of ours for when it does not say.

ART's client has no call for it, so the list is asked for as servers of this protocol give one, `GET /models`. A service
without a list is no reason to refuse: it says itself, when the model is registered, that it does not train it, and
nothing was spent by then.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from babylon_assets.config.network import is_loopback
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import BaseModelRefused

#: How long the service may take to say what it trains.
ASK_SECONDS = 15


@cache
def known_models() -> tuple[str, ...]:
    """Those of the file; the first is what is trained when BASE_MODEL is not set."""
    import yaml

    text = (files(__package__) / "hosted_models.yaml").read_text(encoding="utf-8")
    return tuple(yaml.safe_load(text))


def offered_models(settings: Settings) -> tuple[str, ...] | None:
    """Those that the service lists; None where it lists none or does not answer."""
    import httpx

    url, key = settings.serverless.url.rstrip("/"), settings.training.wandb_api_key
    try:
        with httpx.Client(timeout=ASK_SECONDS, trust_env=not is_loopback(url)) as client:
            reply = client.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"})
        listed = reply.json()["data"] if reply.status_code == httpx.codes.OK else []
        return tuple(str(model["id"]) for model in listed) or None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def require_offered(settings: Settings, base_model: str) -> None:
    """Refuse a base model that neither the file nor the service's own list has, where the service has one.

    Raises:
        BaseModelRefused: with the service's list.
    """
    if base_model in known_models():
        return
    offered = offered_models(settings)
    if offered is not None and base_model not in offered:
        raise refused(base_model, offered)


def refused(base_model: str, models: tuple[str, ...]) -> BaseModelRefused:
    """The refusal of a base model, with those that may be taken."""
    return BaseModelRefused(
        f"the hosted service does not train {base_model}; set BASE_MODEL to one of {', '.join(models)}, or "
        "TRAINING_BACKEND=embedded to train it on this machine"
    )
