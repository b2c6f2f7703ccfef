"""What the operation of a script that could not start says: the cause, and what the script wrote last."""

from __future__ import annotations

from gateway.controlplane.last_words import LINE_CHARS_MAX, last_words

CAUSE = "init() of the scoring script failed: FileNotFoundError: no model"
HEAD = "2026-11-30 20:00:00,123"
LOG = f"""{HEAD} I [7] azmlinfsrv.user_script - Invoking user's init function
{HEAD} I [7] azmlinfsrv.print - looking in /models
{HEAD} W [7] root - nothing   there
plain words of a library
{HEAD} E [7] azmlinfsrv - {CAUSE}
Traceback (most recent call last):
  File "score.py", line 3, in init
FileNotFoundError: no model
"""


def test_the_cause_comes_first_then_the_scripts_own_lines_and_never_the_traceback() -> None:
    told = last_words(CAUSE, LOG, is_told_by_host=True)
    assert told == (
        f"{CAUSE}; its log ends with: looking in /models | root - nothing there | plain words of a library"
    )


def test_a_log_that_begins_within_the_traceback_adds_nothing() -> None:
    assert last_words(CAUSE, LOG.partition("Traceback")[2], is_told_by_host=True) == CAUSE
    assert last_words(CAUSE, "", is_told_by_host=True) == CAUSE


def test_of_a_worker_that_ended_by_itself_the_last_lines_are_told_within_bounds() -> None:
    log = "".join(f"line {number} {'x' * 300}\n" for number in range(100))
    told = last_words("the worker process ended with signal 9", log, is_told_by_host=False)
    assert told.startswith("the worker process ended with signal 9; its log ends with: line 97 x")
    assert told.count(" | ") == 2
    assert len(told) < 100 + 3 * (LINE_CHARS_MAX + 3)
    assert "\n" not in told
