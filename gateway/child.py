"""What the processes of ours that run models share: what they inherit, and which signals they leave alone."""

from __future__ import annotations

import os
import signal

MASTER_KEYS = ("GATEWAY_MASTER_KEY", "GATEWAY_MASTER_KEY_OLD")


def environment() -> dict[str, str]:
    """The supervisor's own; what runs models has no use for what seals the store's secrets."""
    return {name: value for name, value in os.environ.items() if name not in MASTER_KEYS}


def leave_signals() -> None:
    """A Ctrl-C in the terminal reaches the whole group; only the supervisor decides what it means."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
