"""How programs outlive the daemon: the saved state, the takeover by the next daemon, the change in place, and who clears up."""
