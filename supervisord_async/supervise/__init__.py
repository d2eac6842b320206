"""Supervision: the driver of one process, its monitors, and the daemon that holds them together.

One way up, one way down: ``monitors`` post inputs, the pure machine of ``core`` decides, ``process`` carries the effects
out and ``records`` tell everybody. Where to look:

* a process: ``process`` (one mailbox, one deadline), ``mailbox``, ``errands`` (its tasks, while there is something to do);
* ``runs``: how one run of it begins, is equipped and heard, and ends;
* ``monitors``: what watches it (exit, heartbeat, probes, files, memory, schedule, notify), one file a kind, by ``senses``:
  the questions, the searches, the one file watcher, the sd_notify socket;
* ``fleet``: all of them: dependencies, stopping, rolling, scaling, sockets and activation, schedules; ``supervisor`` holds
  the names and carries out plans;
* ``records``: what is told: the bus, its words, masking, history, figures, hooks on events;
* the daemon: ``daemon`` (lifetime), ``run_dir``, ``means`` and ``belongings`` (what it needs, what it must not lose), ``watchdog`` and
  ``standing`` (what systemd is told);
  ``single`` is the whole of asup-run;
* ``enclosures``: a cgroup for each run, where such are to be had;
* ``outlive``: the saved state, the takeover of what lives, re-exec, on_death, leftovers;
* the machine below: ``host`` is the seam, ``machine_host`` the real one, tests have others; ``patience`` waits out shortages.
"""
