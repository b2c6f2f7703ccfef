"""What onnxruntime says of a failure, as part of one sentence that a stranger may read: no paths, no source places.

Errors: none. Source: the texts of onnxruntime's statuses.
"""

from __future__ import annotations

import re

_CAUSE_CHARS_MAX = 200

_STATUS = re.compile(r"^(?:\[ONNXRuntimeError\] : \d+ : \w+ : )?(?:Load model from \S+ failed: ?)?")
_NODE = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'[^']*' Status Message: ")
# A place in onnxruntime's source: file, line, and the signature of the function.
_PLACE = re.compile(r"\S*/\S+\.(?:cc|h|cu|cuh|hpp):\d+ .*?\)(?: const)?(?: \[with [^\]]*\])?(?:::<lambda\S*>)? ?")
_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\",;:]+")


def short_cause(fault: BaseException) -> str:
    """What onnxruntime said, as part of one sentence: first line, no status prefix, paths or source places."""
    text = _STATUS.sub("", str(fault).strip())
    nodes = _NODE.findall(text)
    text = _PLACE.sub("", _NODE.sub("", text)).strip()
    text = _PATH.sub("…", text.splitlines()[0] if text else type(fault).__name__).strip().rstrip(".")
    if nodes:
        text = f"{nodes[-1]}: {text}"
    # Names in a model are anybody's text: none of it is for a terminal to carry out.
    text = "".join(one if one.isprintable() else "?" for one in text)
    return text if len(text) <= _CAUSE_CHARS_MAX else text[: _CAUSE_CHARS_MAX - 1] + "…"
