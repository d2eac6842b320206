"""One run of a process, from its settings to its end: how it is prepared, equipped, spawned, captured, and asked to stop."""
