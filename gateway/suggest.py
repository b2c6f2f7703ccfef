"""Did you mean: the end of a sentence that refuses a name, with the nearest accepted one or all of them.

Why: an unknown key, option or deployment is nearly always a slip of the pen; naming the right one saves
a search.
"""

from __future__ import annotations

from collections.abc import Iterable

# A longer list would hide the sentence it ends.
_LISTED_MAX = 24


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like the word, whatever its case and dashes; None where nothing is alike."""
    import difflib  # here, because a command that makes no mistake need not load it

    by_squashed = {squash(choice): choice for choice in choices}
    found = difflib.get_close_matches(squash(word), by_squashed, n=1, cutoff=0.6)
    return by_squashed[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The rest of a sentence: '; did you mean x?', or what would be accepted, or nothing."""
    accepted = sorted(choices)
    match = nearest(word, accepted)
    if match is not None:
        return f"; did you mean {match}?"
    if not accepted or len(accepted) > _LISTED_MAX:
        return ""
    return f"; accepted: {', '.join(accepted)}"


def squash(word: str) -> str:
    """A name without case, underscores and dashes: camelCase, snake_case and kebab-case become equal."""
    return word.replace("_", "").replace("-", "").lower()
