"""The three commands: arguments in, text and exit codes out.

``asupd``, ``asupctl`` and ``asup_run`` are the entry points; ``verbs`` has a module for each family of asupctl's verbs. Texts for
people are worded in ``words`` and written by ``output``; ``locate`` and ``residence`` find the daemon that is meant.
A command lives for milliseconds, so whatever not every call needs is imported where it is needed.
"""
