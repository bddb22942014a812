"""Operators by domain, name and version: how they are spelled, and tables of what is known of each.

What the package knows of an operator (shapes, symmetries, how it is rewritten) stands in a `Table`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

STANDARD = ""
CONTRIB = "com.microsoft"
CLASSICAL = "ai.onnx.ml"
BOTH = (STANDARD, CONTRIB)
"""Domains: the ONNX standard, onnxruntime's, ONNX for classical machine learning; the first two at once."""

FIRST = 1
"""The first version of every operator set; a file that imports none of a domain counts as importing it."""

ANY = ""
"""The name under which an entry for every operator of a domain stands."""

Entry = TypeVar("Entry")


class OperatorOf(Protocol):
    """What says which operator it is of: a node of onnx-ir or of protobuf."""

    @property
    def domain(self) -> str:
        """The domain as the file spells it."""

    @property
    def op_type(self) -> str:
        """The name."""


def domain_of(node: OperatorOf) -> str:
    """The domain of a node's operator in its one spelling: 'ai.onnx' is the standard's second name."""
    return STANDARD if node.domain == "ai.onnx" else node.domain


def is_standard(node: OperatorOf, *names: str) -> bool:
    """Whether a node is one of these operators of the standard; of any, if none is named."""
    return node.domain in (STANDARD, "ai.onnx") and (not names or node.op_type in names)


class Key(NamedTuple):
    """What an entry stands under: an operator from version `since` on, and the pattern if it has several."""

    domain: str
    name: str
    since: int = FIRST
    pattern: str = ""


class Table(Generic[Entry]):
    """Entries by operator; a second one under the same key is refused.

    >>> rules: Table[str] = Table("shapes")
    >>> rules.enter("one size", "Split")
    >>> rules.enter("sizes as input", "Split", since=13)
    >>> rules.find(STANDARD, "Split", 11), rules.find(STANDARD, "Split", 17)
    ('one size', 'sizes as input')
    >>> rules.enter("again", "Split")
    Traceback (most recent call last):
    ...
    ValueError: two entries for ai.onnx::Split of version 1 in the table of shapes

    Attributes:
        subject: what is known of operators here.
        entries: the entries by their keys, in the order in which they were entered.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.entries: dict[Key, Entry] = {}
        self._keys: dict[tuple[str, str], list[Key]] = {}

    def enter(
        self,
        entry: Entry,
        *names: str,
        domain: str | Sequence[str] = STANDARD,
        since: int = FIRST,
        pattern: str = "",
    ) -> None:
        """Enter what is known of operators from a version on.

        Raises:
            ValueError: If an operator has an entry of that version and pattern already.
        """
        for key in (
            Key(one, name, since, pattern)
            for one in ((domain,) if isinstance(domain, str) else domain)
            for name in names
        ):
            if key in self.entries:
                pattern = f", pattern '{key.pattern}'," if key.pattern else ""
                raise ValueError(
                    f"two entries for {key.domain or 'ai.onnx'}::{key.name or 'any'} of version {key.since}"
                    f"{pattern} in the table of {self.subject}"
                )
            self.entries[key] = entry
            self._keys.setdefault((key.domain, key.name), []).append(key)

    def register(
        self, *names: str, domain: str | Sequence[str] = STANDARD, since: int = FIRST
    ) -> Callable[[Entry], Entry]:
        """A decorator that enters a function for operators of one or several domains."""

        def enter(entry: Entry) -> Entry:
            self.enter(entry, *names, domain=domain, since=since)
            return entry

        return enter

    def find(self, domain: str, name: str, version: int) -> Entry | None:
        """The newest entry that is not newer than a version of the operator set; None if there is none."""
        newest: Key | None = None
        for key in self._keys.get((domain, name), ()):
            if key.since <= max(version, FIRST) and (newest is None or newest.since < key.since):
                newest = key
        return None if newest is None else self.entries[newest]

    def of(self, node: OperatorOf, version: int) -> Entry | None:
        """The entry for a node that is written in a version of its operator set; None if there is none."""
        return self.find(domain_of(node), node.op_type, version)

    def patterns(self, domain: str, name: str, version: int) -> list[Entry]:
        """The entries of all patterns of an operator, each the newest that is not newer than a version."""
        newest: dict[str, Key] = {}
        for key in self._keys.get((domain, name), ()):
            before = newest.get(key.pattern)
            if key.since <= max(version, FIRST) and (before is None or before.since < key.since):
                newest[key.pattern] = key
        return [self.entries[key] for key in newest.values()]

    def __contains__(self, operator: tuple[str, str]) -> bool:
        """Whether there is any entry for an operator, given by domain and name."""
        return operator in self._keys

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The operators that have entries, by domain and name."""
        return iter(self._keys)
