"""The decisions of supervision, pure: no loop, clock, randomness, file, log or process.

``state`` names what is known of a process, ``inputs`` what can happen to it, ``effects`` what may be done
about it, ``policy`` the numbers that decide, and ``machine`` holds the table and ``step()``. ``order`` decides who
may start before whom, ``record`` is what the rest of the world is told.
"""
