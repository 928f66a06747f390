"""What an evaluation is called, and what it was measured on, in words."""

from __future__ import annotations

from typing import Final

OFF_POLICY: Final = "off_policy"
RECORDED_PROMPTS: Final = "recorded_prompts"


def describe_windows(evaluation: str, window: str | None) -> str:
    """The windows that an evaluation was measured on; empty for one that is the same for all, such as a benchmark."""
    if window is None:
        return ""
    return f"windows up to {window}" if evaluation == RECORDED_PROMPTS else window
