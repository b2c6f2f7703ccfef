"""How a request may end without an answer, and moments that never come."""

from __future__ import annotations

FOREVER_NS = 1 << 62
LOST, TIMEOUT, UNANSWERED, NO_HTTP = "lost", "timeout", "unanswered", "no HTTP"
# A connection that could not be opened; no request was sent on it.
CONNECT = "connect"
