"""What can be asked of a running daemon, and how the answers travel.

``commands`` does what is asked, without any transport; ``operations`` is the table of the HTTP API, made of what ``operation``
defines and served by ``http`` behind the door of ``auth``, on sockets that ``listener`` keeps. ``events``, ``logs``, ``metrics`` and
``web`` (the page) are further answers; ``why``, ``stories`` and ``rule`` explain a state, in the words of ``words``. Nothing here
decides about a process: it posts inputs and reads snapshots and records.
"""
