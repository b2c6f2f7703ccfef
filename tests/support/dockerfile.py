"""Reads a Dockerfile into its instructions, as far as ours go.

Errors: AssertionError where the file uses what this reader does not know, so that a test never passes by blindness.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

KNOWN = {
    *("FROM", "RUN", "COPY", "LABEL", "ENV", "USER", "WORKDIR", "VOLUME", "EXPOSE"),
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    word: str
    text: str

    @property
    def words(self) -> list[str]:
        """The exec form's words."""
        words = json.loads(self.text)
        assert isinstance(words, list) and all(isinstance(word, str) for word in words)
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    image: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, word: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.word == word]

    def one(self, word: str) -> Instruction:
        (instruction,) = self.all(word)
        return instruction


def read(path: Path) -> list[Stage]:
    """The stages in the file's order."""
    stages: list[Stage] = []
    for instruction in _instructions(path.read_text()):
        if instruction.word == "FROM":
            image, *rest = instruction.text.split()
            stages.append(Stage(image=image, name=rest[1] if rest else "", instructions=()))
        else:
            last = stages[-1]
            instructions = (*last.instructions, instruction)
            stages[-1] = Stage(image=last.image, name=last.name, instructions=instructions)
    return stages


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        assert word in KNOWN, f"{word} is not an instruction that this reader knows"
        found.append(Instruction(word=word, text=rest.strip()))
    return found
