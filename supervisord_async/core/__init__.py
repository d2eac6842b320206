"""The decisions of supervision, pure: no loop, clock, randomness, file, log or process.

``state`` names what is known of a process, ``inputs`` what can happen to it, ``effects`` what may be done
about it, ``policy`` the settings that decide, and ``machine`` holds the table and ``step()``. ``order`` decides which
programs start before which; ``record`` is the form in which every change is published.
"""
