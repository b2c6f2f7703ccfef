"""Headers and form values: mappings in which a name may have several values.

Why: scripts that ask for the raw request were written against Flask's objects; these have the members that they use.
Errors: KeyError for a name that is not there, by subscript only.
"""

from typing import Any, Dict, Iterable, Iterator, List, Mapping, Tuple, Union

Pairs = Union[None, Mapping[str, Any], Iterable[Tuple[str, Any]]]


def _pairs(source: Pairs) -> List[Tuple[str, Any]]:
    if source is None:
        return []
    if isinstance(source, list):
        # Looked at first: to tell a mapping takes long.
        return source
    return list(source.items()) if isinstance(source, Mapping) else list(source)


class Headers:
    """Header lines in their order. Names are compared without regard to case, and kept as they were given."""

    def __init__(self, source: Pairs = None) -> None:
        self._lines: List[Tuple[str, str]] = [(str(name), str(value)) for name, value in _pairs(source)]

    def __getitem__(self, name: str) -> str:
        for value in self._values(name):
            return value
        raise KeyError(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.remove(name)
        self.add(name, value)

    def __delitem__(self, name: str) -> None:
        self.remove(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(True for _ in self._values(name))

    def __iter__(self) -> Iterator[Tuple[str, str]]:
        return iter(list(self._lines))

    def __len__(self) -> int:
        return len(self._lines)

    def __repr__(self) -> str:
        return f"Headers({self._lines!r})"

    def _values(self, name: str) -> Iterator[str]:
        wanted = name.lower()
        return (value for found, value in self._lines if found.lower() == wanted)

    def get(self, name: str, default: Any = None, type: Any = None) -> Any:
        for value in self._values(name):
            if type is None:
                return value
            try:
                return type(value)
            except (ValueError, TypeError):
                return default
        return default

    def getlist(self, name: str) -> List[str]:
        return list(self._values(name))

    get_all = getlist

    def keys(self) -> List[str]:
        return [name for name, _ in self._lines]

    def values(self) -> List[str]:
        return [value for _, value in self._lines]

    def items(self) -> List[Tuple[str, str]]:
        return list(self._lines)

    def add(self, name: str, value: Any) -> None:
        self._lines.append((name, str(value)))

    def set(self, name: str, value: Any) -> None:
        self[name] = value

    def setdefault(self, name: str, value: Any) -> str:
        if name not in self:
            self.add(name, value)
        return self[name]

    def remove(self, name: str) -> None:
        wanted = name.lower()
        self._lines = [line for line in self._lines if line[0].lower() != wanted]

    def update(self, source: Pairs) -> None:
        for name, value in _pairs(source):
            self[name] = value

    def to_dict(self) -> Dict[str, str]:
        """As a script's `request_headers`: names in title case, several values of a name joined by commas."""
        found: Dict[str, str] = {}
        for name, value in self._lines:
            title = name.title()
            found[title] = f"{found[title]},{value}" if title in found else value
        return found


class MultiDict(Dict[str, Any]):
    """A dict of the first value of each name; `getlist` gives them all."""

    def __init__(self, source: Pairs = None) -> None:
        self._lists: Dict[str, List[Any]] = {}
        for name, value in _pairs(source):
            self._lists.setdefault(name, []).append(value)
        super().__init__({name: values[0] for name, values in self._lists.items()})

    def get(self, key: str, default: Any = None, type: Any = None) -> Any:
        value = super().get(key, default)
        if type is None or key not in self:
            return value
        try:
            return type(value)
        except (ValueError, TypeError):
            return default

    def getlist(self, key: str) -> List[Any]:
        return list(self._lists.get(key, ()))

    def to_dict(self, flat: bool = True) -> Dict[str, Any]:
        return dict(self) if flat else {name: list(values) for name, values in self._lists.items()}


def parse_options(value: str) -> Tuple[str, Dict[str, str]]:
    """`form-data; name="a"` into its first part, lower-cased, and its parameters."""
    first, *rest = _split_outside_quotes(value)
    found: Dict[str, str] = {}
    for part in rest:
        name, mark, text = part.partition("=")
        text = text.strip()
        if len(text) >= 2 and text[0] == text[-1] == '"':
            text = text[1:-1].replace('\\"', '"').replace("%22", '"')
        if mark:
            found[name.strip().lower()] = text
    return first.strip().lower(), found


def _split_outside_quotes(value: str) -> List[str]:
    parts, start, quoted, escaped = [], 0, False, False
    for at, letter in enumerate(value):
        if escaped:
            escaped = False
        elif letter == "\\" and quoted:
            escaped = True
        elif letter == '"':
            quoted = not quoted
        elif letter == ";" and not quoted:
            parts.append(value[start:at])
            start = at + 1
    return [*parts, value[start:]]
