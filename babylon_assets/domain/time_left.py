"""How much longer a run of many windows takes, by those that it has done."""

from __future__ import annotations


def describe_time_left(done: int, total: int, seconds: float, since_last: float = 0.0) -> str:
    """What can be said of the rest; nothing before the second window.

    The windows that are left are taken to be like those before. Where the one in progress has taken longer than they
    did on the average, that says nothing of the rest, and it is said instead.

    Args:
        seconds: from the end of the first window to that of the last one.
        since_last: how long the window in progress has taken.
    """
    if done < 2 or done >= total:
        return ""
    mean = seconds / (done - 1)
    if since_last > max(2 * mean, 10):
        return f"this window has taken {_words(since_last)}, those before {_words(mean)} each"
    return f"about {_words(max(0.0, mean * (total - done) - since_last))} left"


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
