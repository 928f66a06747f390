"""Which environments there are, and which one an installation has.

An installed package adds one by an entry point of the group `babylon_assets.environments`: a class that takes the
settings.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from babylon_assets.domain.errors import SettingsError
from babylon_assets.environments.base import Environment

if TYPE_CHECKING:
    from babylon_assets.config.settings import Settings

GROUP = "babylon_assets.environments"


def open_environment(settings: Settings) -> Environment:
    """The environment that ENVIRONMENT names; `auto` is the simulated market in the embedded database, else Babylon.

    Raises:
        SettingsError: there is none of that name, or its package cannot be loaded.
    """
    name = settings.database.environment
    if name == "auto":
        name = "babylon" if settings.database.url else "simulated"
    return _load(name)(settings)


def environment_names() -> list[str]:
    """The names that ENVIRONMENT may have besides `auto`."""
    return sorted({*_OWN, *(point.name for point in entry_points(group=GROUP))})


def _load(name: str) -> Callable[[Settings], Environment]:
    if name in _OWN:
        return _OWN[name]
    for point in entry_points(group=GROUP, name=name):
        try:
            loaded: Callable[[Settings], Environment] = point.load()
        except Exception as error:
            raise SettingsError(
                f"ENVIRONMENT is {name!r}, and {point.value} cannot be loaded ({type(error).__name__}: {error}); "
                "install its package again"
            ) from error
        return loaded
    raise SettingsError(
        f"ENVIRONMENT is {name!r}; set it to auto, {', '.join(environment_names())}, or install the package that has it"
    )


def _babylon(settings: Settings) -> Environment:
    from babylon_assets.environments.babylon.environment import BabylonEnvironment

    return BabylonEnvironment(settings)


def _simulated(settings: Settings) -> Environment:
    from babylon_assets.environments.simulated.environment import SimulatedEnvironment

    return SimulatedEnvironment(settings)


_OWN: dict[str, Callable[[Settings], Environment]] = {"babylon": _babylon, "simulated": _simulated}
