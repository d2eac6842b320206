"""The only place with system calls: processes, pidfds, signals, pipes, /proc, sockets, locks, the event loop.

Everything here is a thin interface to Linux: no policy, no configuration, no state machine. What the layers above
decide, this layer carries out, and reports how that went.
"""
