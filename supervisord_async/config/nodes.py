"""One YAML document as a tree of nodes that know where they begin.

Composed from the parser's events. PyYAML's own nodes hold two marks of six fields each, which made them the largest thing in
the daemon while it loads, in pieces so small that what lives on between them kept their memory from being given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from yaml.composer import ComposerError
from yaml.events import AliasEvent, MappingEndEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent, StreamEndEvent
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

MAX_DEPTH = 64


class PureParser(Reader, Scanner, Parser):
    """Parses in plain Python."""

    def __init__(self, stream: str | bytes) -> None:
        Reader.__init__(self, stream)
        Scanner.__init__(self)
        Parser.__init__(self)


if TYPE_CHECKING:
    _Parser = PureParser
else:
    try:
        from yaml.cyaml import CParser as _Parser
    except ImportError:  # PyYAML without libyaml: the same result, five times slower
        _Parser = PureParser


class TooDeepError(Exception):
    """Collections are nested beyond :data:`MAX_DEPTH`."""


class Node:
    """A value as it is written. ``tag`` is ``plain`` or ``quoted``, or the explicit tag; line and column count from 1."""

    __slots__ = ("column", "line", "tag", "value")
    value: Any

    def __init__(self, event: Any, value: Any) -> None:
        tag, implicit, mark = event.tag, event.implicit, event.start_mark
        if tag is None or tag == "!":
            tag = "plain" if implicit is True or implicit[0] else "quoted"
        self.tag, self.value, self.line, self.column = tag, value, mark.line + 1, mark.column + 1


class ScalarNode(Node):
    """Text."""

    __slots__ = ()
    value: str


class SequenceNode(Node):
    """A list."""

    __slots__ = ()
    value: list[Node]


class MappingNode(Node):
    """Keys, each with its value: in order, not yet merged, the same one perhaps twice."""

    __slots__ = ()
    value: list[tuple[Node, Node]]


def compose(text: str) -> Node | None:
    """The one document in ``text``; None if there is none. An alias is the very node that it names.

    Raises yaml.YAMLError for what is not YAML or more than one document, and TooDeepError.
    """
    parser = _Parser(text)
    try:
        return _Composer(parser.get_event).document()
    finally:
        parser.dispose()


def members(text: str | bytes) -> Iterator[tuple[Node, Node]]:
    """The keys and values of the mapping in ``text``. What is wrong behind the last one that is asked for does not matter.

    Raises as :func:`compose`, and yaml.YAMLError if it is no mapping.
    """
    parser = _Parser(text)
    try:
        yield from _Composer(parser.get_event).members()
    finally:
        parser.dispose()


class _Composer:
    def __init__(self, next_event: Callable[[], Any]) -> None:
        self._next = next_event
        self._anchors: dict[str, tuple[Node, Any]] = {}  # with the mark of each
        self._depth = 0

    def document(self) -> Node | None:
        self._next()  # the stream's start
        start = self._next()
        if isinstance(start, StreamEndEvent):
            return None
        root = self._node(self._next())
        self._next()  # the document's end
        after = self._next()
        if not isinstance(after, StreamEndEvent):
            raise ComposerError("expected a single document", start.start_mark, "but found another document", after.start_mark)
        return root

    def members(self) -> Iterator[tuple[Node, Node]]:
        self._next()  # the stream's start
        if isinstance(self._next(), StreamEndEvent) or not isinstance(self._next(), MappingStartEvent):
            raise ComposerError(None, None, "expected a mapping", None)
        while not isinstance(key := self._next(), MappingEndEvent):
            yield self._node(key), self._node(self._next())

    def _node(self, event: Any) -> Node:
        anchor, mark = event.anchor, event.start_mark
        if isinstance(event, AliasEvent):
            if anchor not in self._anchors:
                raise ComposerError(None, None, "found undefined alias", mark)
            return self._anchors[anchor][0]
        if anchor in self._anchors:
            raise ComposerError("found duplicate anchor", self._anchors[anchor][1], "second occurrence", mark)
        if isinstance(event, ScalarEvent):
            return self._named(anchor, mark, ScalarNode(event, event.value))
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooDeepError
        if isinstance(event, MappingStartEvent):
            node: Node = self._named(anchor, mark, MappingNode(event, []))
            while not isinstance(key := self._next(), MappingEndEvent):
                node.value.append((self._node(key), self._node(self._next())))
        else:
            node = self._named(anchor, mark, SequenceNode(event, []))
            while not isinstance(item := self._next(), SequenceEndEvent):
                node.value.append(self._node(item))
        self._depth -= 1
        return node

    def _named(self, anchor: str | None, mark: Any, node: Node) -> Node:
        if anchor is not None:
            self._anchors[anchor] = node, mark
        return node
