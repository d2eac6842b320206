"""A supervision daemon for one machine: ``asupd``, ``asupctl`` and ``asup-run``.

Importing this package loads nothing but this file. The layers, from the top: ``cli``, ``control``,
``supervise``, ``config`` and ``logs``, ``system``, ``core``; arrows point down only. ``app`` and ``client``
are for programs that talk to a daemon and load none of it.
"""

__version__ = "0.1.0"
