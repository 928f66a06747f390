"""The progress bars of libraries: hidden, for our own lines say how far a command is."""

from __future__ import annotations

import sys


def hide_bars() -> None:
    """Hide the bars of huggingface_hub and transformers, where they were imported before they could be told otherwise.

    They read HF_HUB_DISABLE_PROGRESS_BARS once, when they are imported.
    """
    if "huggingface_hub" in sys.modules:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    if "transformers.utils.logging" in sys.modules:
        sys.modules["transformers.utils.logging"].disable_progress_bar()
