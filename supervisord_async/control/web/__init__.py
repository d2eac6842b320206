"""The page: one live view of the daemon for a browser, over the same API as everything else.

The browser gets the files in ``static``, served by :mod:`.assets`; everything that they show comes from ``/v1``.
Not here: who may use it (``auth``). The page has no state of its own in the daemon.
"""
