"""A supervision daemon for one machine: ``asupd``, ``asupctl`` and ``asup-run``.

Importing this package loads nothing but this file. The layers, from the top: ``cli``, ``control``,
``supervise``, ``config`` and ``logs``, ``system``, ``core``; arrows point down only. ``app`` is for programs that run
under a daemon, or without one, ``client`` for those that talk to one; neither loads any of it.
"""

__version__ = "0.1.0"
