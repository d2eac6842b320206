"""The page: one live view of the daemon for a browser, over the same API as everything else.

What the browser gets is the files of ``static``, served by :mod:`.assets`; whatever they show they ask of ``/v1``.
Absent: who may ask (``auth``), and any state of its own.
"""
