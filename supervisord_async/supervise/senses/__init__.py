"""What monitors perceive with: probes, searches of output, the file watcher and the notification socket."""
