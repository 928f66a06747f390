"""Which backends there are, which of them trains, and why.

An installed package adds one by an entry point of the group `babylon_assets.training_backends` that names its class.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError
from babylon_assets.training.backend import TrainingBackend
from babylon_assets.training.backends.embedded.backend import Embedded
from babylon_assets.training.backends.local_gpu.backend import LocalGpu
from babylon_assets.training.backends.serverless.backend import Serverless

GROUP = "babylon_assets.training_backends"
#: In the order in which TRAINING_BACKEND=auto asks them; the last one can always train.
SHIPPED: tuple[TrainingBackend, ...] = (Serverless(), LocalGpu(), Embedded())


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The backend that trains, and the sentence that says why."""

    backend: TrainingBackend
    reason: str

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.backend.name


def registered_names() -> list[str]:
    """The names of the shipped backends and of those that installed packages add."""
    return [backend.name for backend in SHIPPED] + sorted(entry_points(group=GROUP).names)


def find_backend(name: str) -> TrainingBackend:
    """The backend of a name; the shipped ones cannot be replaced.

    Raises:
        SettingsError: no installed package has one of this name.
    """
    for backend in SHIPPED:
        if backend.name == name:
            return backend
    for entry in entry_points(group=GROUP, name=name):
        added: TrainingBackend = entry.load()()
        if added.name != name:
            raise SettingsError(f"the entry point {name} gives a training backend that calls itself {added.name}")
        return added
    raise SettingsError(
        f"no training backend is called {name}; set TRAINING_BACKEND to one of {', '.join(registered_names())}, "
        f"or install the package that brings {name}"
    )


def keeps_weights_here(name: str) -> bool:
    """Whether checkpoints of a backend are folders on this machine; not where no backend of that name is installed."""
    return name in registered_names() and find_backend(name).capabilities.keeps_weights_here


def select_backend(settings: Settings) -> BackendChoice:
    """The backend that the settings mean, whether or not it can train: TRAINING_BACKEND's, or the first that can."""
    if settings.training.backend != "auto":
        return BackendChoice(find_backend(settings.training.backend), "TRAINING_BACKEND asks for it")
    lacking: list[str] = []
    for backend in SHIPPED:
        available = backend.availability(settings)
        if available.refusal is None:
            return BackendChoice(backend, "; ".join([*lacking, available.reason]))
        lacking.append(available.reason)
    raise AssertionError("the last of the shipped backends can always train")


def choose_backend(settings: Settings) -> BackendChoice:
    """The backend that trains, which can train here and can train BASE_MODEL.

    Raises:
        SettingsError, MissingDependency: the settings ask for a backend without a key, a GPU or its packages.
        BaseModelRefused: the backend cannot train the base model; the message lists those that it can.
    """
    choice = select_backend(settings)
    if (refusal := choice.backend.availability(settings).refusal) is not None:
        raise refusal
    if settings.training.base_model is not None:
        choice.backend.require_base_model(settings.training.base_model)
    return choice
