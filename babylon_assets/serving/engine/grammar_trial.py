"""A process in which each grammar is made before the gateway makes it: llguidance may end a process, or never return.

`{"const": -9223372036854775808}` does the first, some `multipleOf` the second. A line of JSON with a grammar and the
limits comes in, a line with the error goes out, which is empty without one. Run as a file, so that nothing but
llguidance is imported. It ends when nothing comes in any more, or after the seconds of work on one grammar that its
argument says.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from contextlib import suppress

#: Seconds of work on one grammar.
LONGEST = 2.0
#: Bytes of the stack on which schemas are followed, here and in the gateway. llguidance calls itself for each
#: reference, and schemas within the bounds have so many that it takes up to half of this.
STACK = 64 * 1024 * 1024
#: How far it gives way to sampling.
NICE = 5
_MEMORY = 2 * 1024 * 1024 * 1024


def main(longest: float) -> None:
    """Make the grammars that come in, one after the other.

    Args:
        longest: seconds of work on one grammar.
    """
    for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, _MEMORY)):
        with suppress(ValueError, OSError):  # not every system has them
            resource.setrlimit(kind, (most, most))
    with suppress(OSError):
        os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the gateway, whose requests are answered to the end
    threading.stack_size(STACK)
    thread = threading.Thread(target=_serve, args=(longest,))
    thread.start()
    thread.join()


def _serve(longest: float) -> None:
    import llguidance

    vocabulary = llguidance.LLTokenizer("byte")
    for line in sys.stdin.buffer:
        grammar, limits = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, longest)
        matcher = llguidance.LLMatcher(vocabulary, grammar, log_level=0, limits=llguidance.LLParserLimits(**limits))
        matcher.compute_bitmask()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(json.dumps(matcher.get_error()[:1000]).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
