"""From a program's pipe to its log, and the daemon's own log.

``capture`` reads one stream of one process for the slot's life; ``writer`` has the threads that move output, ``mover`` is one
turn of that; ``sink`` is the open end of a log, which ``rotation`` keeps bounded. ``journal`` and ``spool`` see to it that a
killed daemon loses nothing and doubles nothing. ``tail`` reads logs back. ``own`` is the daemon's own log, ``echo`` what
``asupd --echo`` prints.
"""
