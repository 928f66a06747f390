"""The tools that an answer may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The tools that an answer may ask for.

    Attributes:
        listed: in OpenAI's form, each with a `function`.
        choice: `auto`, `required`, or the name of the one that is to be called.
    """

    listed: Sequence[Mapping[str, Any]]
    choice: str = "auto"

    @property
    def parameters(self) -> dict[str, Mapping[str, Any]]:
        """What may be called: the schema of its arguments by its name."""
        functions = [tool["function"] for tool in self.listed]
        return {function["name"]: function.get("parameters") or {} for function in functions}
