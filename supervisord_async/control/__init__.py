"""The control plane: the commands and queries of a running daemon, and the HTTP API that serves them.

``commands`` carries them out, without any transport, until each process has reached its ``goal``; ``operations`` is the table of the
HTTP API, in terms of ``operation``, which ``http`` serves once ``auth`` has admitted the request, on sockets that ``listener`` keeps.
``events``, ``logs``, ``metrics`` and ``web`` (the page) produce further answers; ``why``, ``past_runs``, ``rule`` and ``words`` explain
a state. Nothing here decides about a process: this package posts inputs, and reads snapshots and records.
"""
