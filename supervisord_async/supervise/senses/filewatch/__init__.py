"""One watcher of files for all programs: what lies below a watched path, one thread that looks, and who hears of it."""
