"""What concerns several processes at once: dependencies, orderly stops, removals, rolling restarts, scaling, sockets and schedules."""
