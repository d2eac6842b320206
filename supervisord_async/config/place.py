"""Where a setting was written, among all files and ``defaults`` that it may come from; and the list of problems."""

from __future__ import annotations

import msgspec

from supervisord_async.config.document import Document, Path, render
from supervisord_async.config.secrets import without_values
from supervisord_async.errors import Problem


class Place(msgspec.Struct, frozen=True):
    """A mapping in a document. ``shown`` is its key path for people, with a list item's name in place of its index."""

    document: Document
    path: Path
    shown: Path

    def depth(self, sub: Path) -> int:
        """How many leading parts of ``sub`` are written here."""
        return self.document.depth((*self.path, *sub)) - len(self.path)

    def problem(self, sub: Path, message: str, *, at_key: bool = False, warning: bool = False, lacks: str = "") -> Problem:
        """``message`` as a problem at ``sub``, whether or not anything is written there."""
        full = (*self.path, *sub)
        line, column = self.document.key_position(full) if at_key else self.document.position(full)
        words = render((*self.shown, *sub))
        return Problem(self.document.name, line, column, f"{words}: {message}" if words else message, warning, lacks)


class Report(msgspec.Struct):
    """Collects problems, with ``secrets`` masked in what they say; the same one twice counts once."""

    secrets: tuple[str, ...] = ()
    problems: set[Problem] = msgspec.field(default_factory=set)

    def add(self, problem: Problem) -> None:
        """``problem`` is in the list."""
        self.problems.add(problem._replace(message=without_values(problem.message, self.secrets)))

    @property
    def errors(self) -> bool:
        """Whether anything but warnings was found."""
        return any(not problem.warning for problem in self.problems)

    def sorted(self) -> tuple[Problem, ...]:
        """All of them, by file, line and column."""
        return tuple(sorted(self.problems))


class Origin(msgspec.Struct, frozen=True):
    """The places of one program's settings: its own first, then the ``defaults`` that were merged under it."""

    places: tuple[Place, ...]
    report: Report

    def error(self, sub: Path, message: str, *, at_key: bool = False) -> None:
        """Reports the setting at ``sub`` as wrong, at the place that has most of its path."""
        self.report.add(self._place(sub).problem(sub, message, at_key=at_key))

    def warning(self, sub: Path, message: str, *, lacks: str = "") -> None:
        """Reports the setting at ``sub`` as doubtful, in the same way; ``lacks`` as in :class:`.Problem`."""
        self.report.add(self._place(sub).problem(sub, message, warning=True, lacks=lacks))

    def has(self, sub: Path) -> bool:
        """Whether the setting at ``sub`` is written anywhere."""
        return any(place.depth(sub) == len(sub) for place in self.places)

    def where(self, sub: Path) -> str:
        """``FILE:LINE:COLUMN`` of the setting at ``sub``."""
        place = self._place(sub)
        line, column = place.document.position((*place.path, *sub))
        return f"{place.document.name}:{line}:{column}"

    def folder(self, sub: Path) -> str:
        """The folder to which a path in the setting at ``sub`` is relative."""
        return self._place(sub).document.directory

    def _place(self, sub: Path) -> Place:
        return max(self.places, key=lambda place: place.depth(sub)) if sub else self.places[0]
