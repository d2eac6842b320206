"""Watchers. Each is an async function that lives as long as what it watches and only posts inputs.

A new kind of watcher or probe is one new file here: a function ``monitor(context)`` for what lives as long as a run,
and its entry in :data:`supervisord_async.supervise.runs.run.MONITORS`. Monitors do not know each other.
"""
