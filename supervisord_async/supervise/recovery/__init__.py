"""How programs outlive the daemon: the saved state, the takeover by the next daemon, the re-exec, and ending what is left over."""
