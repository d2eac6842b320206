"""One YAML file as plain data, with the line and column of every part.

Reads safely: tags, multiple documents, duplicate keys and recursion are refused, and size, depth and the expansion of
aliases are bounded. ``x-`` keys are left out, ``<<`` merges are done, ``${…}`` is expanded. Fewer scalars than in YAML 1.1
have a meaning: ``true``/``false``/``yes``/``no``/``on``/``off`` are booleans, but ``022`` and ``1:30`` stay text, and inside
``environment`` and commands everything stays the text that was written.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypeAlias

import yaml

from supervisord_async.config.expand import ExpansionError, expand, is_variable
from supervisord_async.config.nodes import MAX_DEPTH, MappingNode, Node, ScalarNode, SequenceNode, TooDeepError, compose
from supervisord_async.config.yaml_words import human_words
from supervisord_async.errors import Problem

Path: TypeAlias = tuple[str | int, ...]

#: The most values in a file, an alias counted at each use: 10,000 programs of 100 values each.
MAX_VALUES = 1_000_000

#: Under these keys a scalar is the text that was written, whatever it looks like.
TEXT_KEYS = frozenset({"environment", "command", "before_start", "after_exit", "umask", "socket_mode", "mode"})
#: Under these keys the names are the user's own, so ``x-`` has no special meaning.
_OWN_NAMES = frozenset({"environment", "sockets", "depends_on"})

_INTEGER = re.compile(r"^[-+]?(?:0|[1-9][0-9_]{0,17})$|^0x[0-9a-fA-F]{1,15}$")
_FLOAT = re.compile(r"^[-+]?(?:[0-9]{1,20}\.[0-9]{0,20}|\.[0-9]{1,20}|[0-9]{1,20})(?:[eE][-+]?[0-9]{1,3})?$")
_LEADING_ZERO = re.compile(r"^[-+]?0[0-9]")
_MEANINGS = (("null", None), ("true", True), ("false", False), ("yes", True), ("no", False), ("on", True), ("off", False))
_WORDS: dict[str, bool | None] = {"": None, "~": None}
_WORDS |= {form: meaning for word, meaning in _MEANINGS for form in (word, word.title(), word.upper())}


class Document:
    """A file's data and positions. ``problems`` lists what is wrong with the YAML itself; ``data`` is what could be read."""

    def __init__(self, text: str, *, name: str, path: str, variables: Mapping[str, str]) -> None:
        self.name = name  #: the file's name in problems: as the user gave it
        self.path = path  #: absolute
        self.directory = os.path.dirname(path)
        self.problems: list[Problem] = []
        self.data: Any = None
        self._text = text
        self._members: dict[int, dict[str | int, tuple[Node, Node]]] = {}  # cache of :func:`_members`, by the node's id
        try:
            root = compose(text)
        except TooDeepError:
            self.problems.append(Problem(name, 1, 1, f"collections are nested deeper than {MAX_DEPTH}"))
        except yaml.YAMLError as error:
            line, column, words = human_words(error, text)
            self.problems.append(Problem(name, line, column, words))
        else:
            self.data = _Reading(name, variables, self.problems).data(root) if root is not None else None

    @cached_property
    def _root(self) -> Node | None:
        """The nodes, composed anew where a position is asked for: in a sound file nobody asks, and they weigh more than the data."""
        try:
            return compose(self._text)
        except (TooDeepError, yaml.YAMLError):
            return None

    def position(self, path: Path) -> tuple[int, int]:
        """Line and column, from 1, of what is at ``path``: of a scalar itself, else of its key.

        If ``path`` is not in the file: of its deepest part that is.
        """
        node, at = self._root, self._root
        for part in path:
            key, value = self._child(node, part)
            if value is None:
                break
            node = value
            at = value if _is_written_scalar(value) or key is None else key
        return (at.line, at.column) if at is not None else (1, 1)

    def depth(self, path: Path) -> int:
        """How many leading parts of ``path`` are in the data."""
        data = self.data
        for index, part in enumerate(path):
            if not (part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))):
                return index
            data = data[part]
        return len(path)

    def key_position(self, path: Path) -> tuple[int, int]:
        """Line and column, from 1, of the key at ``path`` (of the value, in a list)."""
        key, value = self._child(self._node(path[:-1]), path[-1]) if path else (None, None)
        at = key or value
        return (at.line, at.column) if at is not None else self.position(path)

    def written(self, path: Path) -> str | None:
        """The text of the plain scalar at ``path`` as it was written; None for anything else."""
        node = self._node(path)
        return str(node.value) if _is_written_scalar(node) and node.tag == "plain" else None

    def unquoted(self, path: Path, text: str) -> Any:
        """``text``, the value at ``path``; if it was written as ``"${…}"``, what it would mean without the quotes."""
        node = self._node(path)
        return _plain(text) if isinstance(node, ScalarNode) and node.tag == "quoted" and is_variable(node.value) else text

    def _node(self, path: Path) -> Any:
        node = self._root
        for part in path:
            node = self._child(node, part)[1]
        return node

    def _child(self, node: Any, part: str | int) -> tuple[Any, Any]:
        """The nodes of the key and the value at ``part`` of ``node``; None for what does not exist."""
        if isinstance(node, SequenceNode):
            return None, node.value[part] if isinstance(part, int) and part < len(node.value) else None
        members = self._members.get(id(node))
        if members is None:
            members = self._members[id(node)] = _members(node)
        return members.get(part, (None, None))


class _TooManyValuesError(Exception):
    """The file has more than :data:`MAX_VALUES` values."""


class _Reading:
    """Makes data of nodes; adds what is wrong with them to ``problems``."""

    def __init__(self, name: str, variables: Mapping[str, str], problems: list[Problem]) -> None:
        self._name = name
        self._variables = variables
        self._problems = problems
        self._values = 0
        self._open: set[int] = set()
        self._texts: dict[int, str] = {}

    def data(self, root: Node) -> Any:
        """What the file says; None if it unfolds to too much."""
        try:
            return self._construct(root, (), False)
        except _TooManyValuesError:
            self._report(root, f"aliases unfold to more than {MAX_VALUES} values; write less by reference")
            return None

    def _report(self, node: Node, message: str, path: Path = ()) -> None:
        where = f"{render(path)}: " if path else ""
        problem = Problem(self._name, node.line, node.column, where + message)
        if problem not in self._problems:  # an alias is read at each use
            self._problems.append(problem)

    def _construct(self, node: Node, path: Path, as_text: bool) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooManyValuesError
        if node.tag not in ("plain", "quoted"):
            self._report(node, f"tags such as {node.tag} are not allowed", path)
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, path, as_text)
        if not self._enterable(node, path):
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self._construct(item, (*path, index), as_text) for index, item in enumerate(node.value)]
            return self._mapping(node, path, as_text)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: Node, path: Path, as_text: bool) -> dict[str, Any]:
        own = bool(path) and path[-1] in _OWN_NAMES and path != ("programs", path[-1])
        data = {}
        for key, value in self._pairs(node, path):
            name = key.value
            if "\0" in name:
                self._report(key, "a NUL character is not allowed", path)
                continue
            if not own and name.startswith("x-"):
                continue
            text = as_text or (name in TEXT_KEYS and path != ("programs",))
            data[name] = self._construct(value, (*path, name), text)
        return data

    def _pairs(self, node: Node, path: Path) -> list[tuple[Node, Node]]:
        """The keys and values of a mapping, ``<<`` merged in; the mapping's own keys win. Reports duplicates."""
        own: dict[str, tuple[Node, Node]] = {}
        merged: list[Node] = []
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._report(key, "expected a name as key, found a collection", path)
            elif key.value == "<<" and key.tag == "plain":
                merged += value.value if isinstance(value, SequenceNode) else [value]
            elif key.value in own:
                before = own[key.value][0]
                first = f"{self._name}:{before.line}:{before.column}"
                self._report(key, f"duplicate key; it was given before at {first}", (*path, key.value))
            else:
                own[key.value] = (key, value)
        for source in merged:
            if not isinstance(source, MappingNode):
                self._report(source, "expected a mapping to merge by '<<'", path)
            elif self._enterable(source, path):
                self._open.add(id(source))
                for key, value in self._pairs(source, path):
                    own.setdefault(key.value, (key, value))
                self._open.discard(id(source))
        return list(own.values())

    def _enterable(self, node: Node, path: Path) -> bool:
        """Whether a collection may be entered: it is not inside itself, and aliases do not nest it too deeply. Reports why not."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooManyValuesError
        if id(node) in self._open:
            self._report(node, "the alias refers to the very collection that holds it", path)
        elif len(self._open) >= MAX_DEPTH:
            self._report(node, f"aliases lead deeper than {MAX_DEPTH} collections", path[:4])
        else:
            return True
        return False

    def _scalar(self, node: Node, path: Path, as_text: bool) -> Any:
        text = node.value
        if "$" in text:
            if id(node) not in self._texts:
                try:
                    self._texts[id(node)] = expand(text, self._variables)
                except ExpansionError as error:
                    self._report(node, str(error), path)
                    self._texts[id(node)] = text
            text = self._texts[id(node)]
        if "\0" in text:
            self._report(node, "a NUL character is not allowed", path)
            return None
        if node.tag == "quoted":
            return text
        if as_text:
            return None if not node.value or (text in ("~", "null") and isinstance(path[-1], str)) else text
        return _plain(text)


def _members(node: Any) -> dict[str | int, tuple[Any, Any]]:
    """A mapping's key and value nodes by name, with those merged in by ``<<``, which never win; {} for anything else."""
    members: dict[str | int, tuple[Any, Any]] = {}
    waiting, seen = [node], set()
    while waiting:
        source = waiting.pop(0)
        if not isinstance(source, MappingNode) or id(source) in seen:
            continue
        seen.add(id(source))
        for key, value in source.value:
            if isinstance(key, ScalarNode):
                members.setdefault(key.value, (key, value))
            if key.value == "<<":
                waiting += value.value if isinstance(value, SequenceNode) else [value]
    return members


def _is_written_scalar(node: Any) -> bool:
    return isinstance(node, ScalarNode) and (node.value != "" or node.tag == "quoted")


def _plain(text: str) -> Any:
    """What an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first.isdigit() or first in "+-.":
        if _INTEGER.match(text):
            return int(text, 16) if text.startswith("0x") else int(text)
        if _FLOAT.match(text) and not _LEADING_ZERO.match(text):
            number = float(text)
            return number if math.isfinite(number) else text
    return text


def render(path: Path) -> str:
    """``path`` for people: ``programs.web.command[1]``."""
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{_printable(part)}"
    return words.removeprefix(".")


def _printable(text: str) -> str:
    """``text`` with line breaks and control characters escaped, in 80 characters at most."""
    shown = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= 80 else shown[:77] + "…"


def found(value: Any, written: str | None = None) -> str:
    """``value`` as a message names it: ``'soon'``, ``5``, ``a mapping``, ``nothing``."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return written or str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return f"'{_printable(value)}'" if isinstance(value, str) else str(value)
