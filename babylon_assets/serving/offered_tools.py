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
    def names(self) -> list[str]:
        """What may be called."""
        return [tool["function"]["name"] for tool in self.listed]
