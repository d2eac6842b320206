"""Supervision: the driver of one process, its monitors, and the daemon that holds them together.

One way up, one way down: ``monitors`` post inputs, the pure machine of ``core`` decides, ``process`` carries the effects
out and publishes, ``bus`` tells everybody. Where to look:

* a process: ``process`` (one task, one mailbox, one deadline), ``run`` (one incarnation of it), ``mailbox``;
* how a run begins and ends: ``launch`` (from settings to a spawn), ``equipment``, ``output``, ``hooks``, ``stop_command``;
* what watches: ``monitors`` (exit, heartbeat, probes, files, memory, schedule, notify), with ``probing`` and ``logsearch``
  for the questions, ``filewatch`` for the one file watcher, ``notify`` and ``fdstore`` for sd_notify;
* all of them: ``supervisor`` (names, plans), ``dependencies``, ``stopping``, ``rolling``, ``scaling``, ``sockets`` and
  ``activation``, ``schedule``;
* what is told: ``bus``, ``narrate``, ``masking``, ``history``, ``figures``, ``on_event`` with ``webhook``;
* the daemon: ``daemon`` (lifetime), ``means`` and ``belongings`` (what it needs, what it must not lose), ``watchdog``;
  ``single`` is the whole of asup-run;
* outliving it: ``persist`` (the saved state), ``takeover`` (two witnesses of what lives), ``reexec``, ``guard`` and
  ``guardian`` (on_death: stop), ``leftovers``;
* the machine below: ``host`` is the seam, ``machine_host`` the real one, tests have others; ``patience`` waits out want.
"""
