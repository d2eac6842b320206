"""From a program's pipe to its log, and the daemon's own log.

``capture`` reads one stream of a process, over all its runs; ``writer`` has the threads that move output, ``mover`` is one
turn of that; ``sink`` is the open end of a log, which ``rotation`` keeps bounded. ``journal`` and ``spool`` make sure that a
killed daemon neither loses nor duplicates output. ``tail`` reads logs back. ``own_log`` is the daemon's own log, ``echo`` what
``asupd --echo`` prints; both are written by a ``writer_thread``.
"""
