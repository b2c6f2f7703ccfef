"""Place: where a document is, and what was found wrong with it there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gateway.yaml_text import Entries, Mistake, Node


@dataclass(slots=True, kw_only=True)
class Place:
    """Where a document is: its file, the name to call it by, its tree; and what was found wrong with it."""

    file: Path
    label: str
    document: Entries
    mistakes: list[Mistake] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def blame(self, path: str, text: str) -> None:
        """Add a mistake at a path of keys, on the line of its deepest key that is there, unless one is there."""
        if any(known.path == path or known.path.startswith((f"{path}.", f"{path}[")) for known in self.mistakes):
            return
        node: Node = self.document
        line = node.line
        for key in path.split("."):
            if not isinstance(node, Entries) or key not in node.entries:
                break
            line = node.lines[key]
            node = node.entries[key]
        self.mistakes.append(Mistake(line, path, text))

    def note(self, path: str, text: str) -> None:
        self.notes.append(f"{self.label}: {path}: {text}")
