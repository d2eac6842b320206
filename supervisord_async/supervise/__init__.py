"""Supervision: the driver of one process, its monitors, and the daemon that holds them together.

``monitors`` watch and post inputs, the pure machine of ``core`` decides, ``process`` commits the decision and carries out its
effects, and ``records`` tell of the change. Where to look:

* one process: ``process``, its driver (one mailbox, one deadline), with ``mailbox``, ``errands`` (its tasks, while there is
  something to do) and ``surroundings`` (what all processes share);
* one run of it: ``runs``: how it is prepared, spawned, captured, asked to stop, and ends;
* what watches a run: ``monitors``, one file a kind (exit, heartbeat, probes, files, memory, schedule, notify); they perceive by
  ``senses``: how a probe is asked, output searched, files watched for all programs, and sd_notify heard;
* several processes: ``supervisor`` holds the names and applies plans; ``fleet`` has selectors, dependencies, orderly stops, the
  shutdown, removals, rolling restarts, scaling, sockets, activation and schedules;
* what is published: ``records``: the bus, the words of a record, masking, the log, the history, figures, hooks on events;
* the daemon: ``daemon`` (lifetime, signals), ``options`` (what its command line says), ``loading`` (the file, read again), ``run_dir``,
  ``belongings`` (lock, socket and state, made again when somebody removed them), ``means`` (optional modules), ``lasting`` (its own
  tasks, restarted after a bug), ``watchdog`` and ``standing`` (what systemd is told); ``single`` is all of asup-run;
* its death: ``outlive``: saved state, takeover by the next daemon, re-exec, on_death, leftovers;
* the machine below: ``host`` is the seam, ``machine_host`` the real one, tests have others; ``enclosures`` gives each run a cgroup,
  ``patience`` waits while the machine is short of something.
"""
