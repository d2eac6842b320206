"""One run of a process, from settings to its end: what it is given, how it is spawned, prepared, heard and asked to stop."""
