"""Supervision: the driver of one process, its monitors, and the daemon that holds them together.

``monitors`` watch and post inputs, the pure machine of ``core`` decides, ``process`` commits the decision and carries out its
effects, and ``records`` publish the change. Where to look:

* one process: ``process``, its driver (one mailbox, one deadline), with ``mailbox``, ``background_tasks`` (while there is
  something to do) and ``shared_context`` (what all processes share);
* one run of it: ``runs``: how it is prepared, spawned, captured, asked to stop, and ends;
* what watches a run: ``monitors``, one file for each kind (exit, heartbeat, watchdog, probes, files, memory, schedule); below them
  ``sources``: running a probe, searching output, watching files for all programs, receiving sd_notify;
* several processes: ``supervisor`` applies plans; ``fleet`` maps names to processes, and has selectors, dependencies, orderly stops,
  the shutdown, removals, restarts, scaling, sockets, activation and schedules;
* what is published: ``records``: the bus, the wording of records, masking, the log, the history, figures, hooks on events;
* the daemon: ``daemon`` (lifetime, signals), ``options`` (its command line), ``loading`` (reading the file again), ``run_dir``,
  ``run_dir_repair`` (lock, socket and state, made again when somebody removed them), ``optional_modules``, ``keep_running`` (its own
  tasks, restarted after a bug), ``written_paths`` (its own files), ``service_manager`` (what systemd is told);
* ``single``: all of asup-run;
* its death: ``recovery``: saved state, takeover by the next daemon, re-exec, on_death, leftovers;
* the machine below: ``host`` is the interface, ``machine_host`` the real one, tests have others; ``run_cgroups`` gives each run a
  cgroup, ``retry`` retries while the machine is short of resources.
"""
