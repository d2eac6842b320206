"""The three commands: arguments in, text and exit codes out.

``asupd``, ``asupctl`` and ``asup_run`` are the entry points; ``verbs`` has a module for each family of asupctl's verbs. ``words``
and ``output`` word and print text for people; ``locate`` and ``locate_run_dir`` find the daemon that is meant.
A command runs for milliseconds, so whatever not every call needs is imported only where it is needed.
"""
