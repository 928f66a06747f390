"""The progress bars of libraries: hidden, for our own lines say how far a command is."""

from __future__ import annotations

import os
import sys

_VARIABLE = "HF_HUB_DISABLE_PROGRESS_BARS"


def hide_bars() -> None:
    """Hide the bars of huggingface_hub and transformers, unless HF_HUB_DISABLE_PROGRESS_BARS says otherwise.

    They read the variable once, when they are imported: those that were imported before are told themselves.
    """
    if os.environ.setdefault(_VARIABLE, "1") != "1":
        return
    if "huggingface_hub" in sys.modules:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    if "transformers.utils.logging" in sys.modules:
        sys.modules["transformers.utils.logging"].disable_progress_bar()
