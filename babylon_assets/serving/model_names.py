"""What the `model` of a request means: our own names mean themselves, aliases what they stand for, others a default.

A client keeps the name that it has, such as `default` or `gpt-4.1`; the record keeps the name that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from babylon_assets.serving.policy_registry import BASE


class ModelNames:
    """Turns the names that clients use into names of policies.

    Args:
        model: name of the chain; what stands for a name that nothing else knows.
        aliases: names of policies by names, or by patterns as of a shell; the first one that fits holds.
        strict: leave a name that nothing else knows as it is, which is then refused.
    """

    def __init__(self, model: str, aliases: Mapping[str, str], *, strict: bool) -> None:
        self._model, self._aliases, self._strict = model, aliases, strict

    def resolve(self, name: str) -> str:
        """The name of the policy that a client means. A step or a window of the chain that is not there stays wrong."""
        if name in (self._model, BASE) or name.startswith(f"{self._model}@"):
            return name
        if name in self._aliases:
            return self._aliases[name]
        for pattern, target in self._aliases.items():
            if fnmatchcase(name, pattern):
                return target
        return name if self._strict else self._model

    def listed(self) -> dict[str, str]:
        """The aliases that are names and no patterns, with what they stand for."""
        return {name: target for name, target in self._aliases.items() if not set(name) & set("*?[")}
