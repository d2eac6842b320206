"""The three commands: arguments in, text and exit codes out.

``asupd``, ``asupctl`` and ``asup_run`` are the entries; ``verbs`` has a module for each family of asupctl's verbs. What is
said to people is worded in ``words`` and written by ``output``; ``locate`` and ``residence`` find the daemon that is meant.
A command lives for milliseconds, so whatever it may do without is imported where it is needed.
"""
