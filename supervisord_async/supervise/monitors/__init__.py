"""Monitors. Each is an async function that runs as long as what it watches, and whose only effect is to post inputs.

A new kind of monitor is one new file here. One that watches a run is a function ``monitor(context)``, with an entry in
:data:`supervisord_async.supervise.runs.run.MONITORS`. Monitors do not know each other.
"""
