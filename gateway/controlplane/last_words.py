"""Why a script could not start, as the failed operation tells it: the cause, and what the script wrote last. Pure.

Why: whoever deploys sees the operation's message and often nothing else. The traceback is left to the log: it is long
and names what only the script's author needs.
Units: at most LINES_MAX lines of LINE_CHARS_MAX characters.
"""

from __future__ import annotations

import re

LINES_MAX, LINE_CHARS_MAX = 3, 200
# The host's own records, and what every record begins with.
_HOSTS = re.compile(r" azmlinfsrv(\.user_script)? - ")
_HEAD = re.compile(r"^\d{4}-\d\d-\d\d [\d:,.]+ \w \[\d+\] (?:azmlinfsrv\.print - )?")


def last_words(message: str, log: str, *, is_told_by_host: bool) -> str:
    """`is_told_by_host`: the log has the cause as well, with the traceback from there on."""
    lines = [" ".join(line.split()) for line in log.splitlines()]
    if is_told_by_host:
        begins = [at for at, line in enumerate(lines) if line.endswith(" ".join(message.split()))]
        lines = lines[: begins[-1]] if begins else []
    written = [_HEAD.sub("", line)[:LINE_CHARS_MAX] for line in lines if line and not _HOSTS.search(line)]
    return f"{message}; its log ends with: {' | '.join(written[-LINES_MAX:])}" if written else message
