"""Another user, and the links that he lays; to be made by root only. The folder of his is the fixture ``theirs``."""

from __future__ import annotations

import os
from pathlib import Path

STRANGER = 65501


def lay(link: Path, target: Path | str, owner: int = STRANGER) -> Path:
    """A link of ``owner``'s."""
    link.symlink_to(target)
    os.chown(link, owner, owner, follow_symlinks=False)
    return link
