"""File watching for all programs: what lies below a watched path, the threads that look, and the subscriptions to changes."""
