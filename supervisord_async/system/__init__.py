"""The only place with system calls: processes, pidfds, signals, pipes, /proc, sockets, locks, the event loop.

Everything here is a thin interface to Linux: no policy, no configuration, no state machine. What the layers above
decide, this layer carries out, and reports how that went. Where to look:

* starting a process: ``spawn``; with ``credentials``, ``limits`` and the small program that sets them (``launcher``), and ``disks``, so
  that a start does not block the loop;
* one process: ``child`` (watched until it ends), ``identity``, ``pidfd``, ``oom``;
* all of a run: ``tree``, by ``cgroups``, ``tags`` and ``orphans``; ``process_table``, ``procfs`` and ``usage`` read /proc;
* the daemon's own process: ``requirements``, ``lock``, ``signals``, ``stop_signals``, ``descriptors``, ``terminal``, ``heap`` and
  ``own_python``;
* the loop: ``loop``; below it ``poller``, ``wakeup``, ``alarm``, ``wait_condition``, ``turn_limiter`` and ``threads``;
* pipes, files and sockets: ``pipes``, ``transfer``; ``safe_open``, ``exchange``, ``removals``, ``mounts``; ``sockets``, ``listening``,
  ``accepting``, ``datagrams``;
* ``shortage``, which tells what passes from what does not.
"""
