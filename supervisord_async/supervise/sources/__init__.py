"""Where monitors get their information: probes, searches of output, the file watcher and the sd_notify socket."""
