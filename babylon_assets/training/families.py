"""Which base models can be trained on this machine, found out before anything is spent.

A folder is judged by its config.json and its chat template; a hub name that is not on this machine yet, when its
config is there, which is before its weights are fetched.
"""

from __future__ import annotations

import json
from pathlib import Path

from babylon_assets.domain.errors import BaseModelRefused
from babylon_assets.training.model_sources import is_source, require_source

#: `model_type` of config.json, by the family's name.
FAMILIES = {"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama"}


def require_local(base_model: str) -> None:
    """Refuse a base model that cannot be trained on this machine, as far as its files are here.

    Raises:
        BaseModelRefused: it is of no family that can be, or is not complete; the message lists the families.
    """
    if is_source(base_model):
        require_source(base_model)
        return
    config = find_config(base_model)
    if config is not None:
        require_family(base_model, str(json.loads(config.read_text()).get("model_type")))
    elif Path(base_model).exists() or not _may_be_of_the_hub(base_model):
        raise BaseModelRefused(
            f"there is no config.json in {base_model}, so it is no model; set BASE_MODEL to the folder or hub name of "
            f"a model of the {_listed()} families"
        )
    if Path(base_model).is_dir() and not _has_chat_template(Path(base_model)):
        raise BaseModelRefused(
            f"the tokenizer in {base_model} has no chat template, so no conversation can be written for it; "
            "add chat_template.jinja, or set BASE_MODEL to a model that was trained to chat"
        )


def require_family(base_model: str, model_type: str) -> None:
    """Refuse a model type that cannot be trained on this machine.

    Raises:
        BaseModelRefused: with the list of families that can be.
    """
    if model_type not in FAMILIES:
        raise BaseModelRefused(
            f"{base_model} is of the type {model_type!r}, which cannot be trained on this machine; set BASE_MODEL to a "
            f"model of the {_listed()} families"
        )


def find_family_on_hub(base_model: str, seconds: float) -> str | None:
    """The family of a model that the hub has, which is asked; None where it does not answer in time.

    Raises:
        BaseModelRefused: the hub has no such model, or one of another family.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        config = HfApi().model_info(base_model, timeout=seconds).config
    except RepositoryNotFoundError:
        raise BaseModelRefused(
            f"the hub shows no model {base_model}; set BASE_MODEL to another, or HF_TOKEN to a token that may read it"
        ) from None
    except (HfHubHTTPError, httpx.HTTPError, OSError):
        return None
    model_type = str((config or {}).get("model_type"))
    require_family(base_model, model_type)
    return FAMILIES[model_type]


def find_config(base_model: str) -> Path | None:
    """The config.json of a folder, or of a hub name that was fetched before; None when it is not on this machine."""
    folder = Path(base_model)
    if folder.is_dir():
        return config if (config := folder / "config.json").is_file() else None
    if folder.is_absolute():
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(base_model, "config.json")
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _may_be_of_the_hub(base_model: str) -> bool:
    """Whether the hub could have a model of this name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(base_model)
    except HFValidationError:
        return False
    return not base_model.startswith("~")


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(json.loads(config.read_text()).get("chat_template"))


def _listed() -> str:
    *most, last = FAMILIES.values()
    return f"{', '.join(most)} and {last}"
