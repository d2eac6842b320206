"""What concerns several processes at once: dependencies, orderly stops, rolling restarts, scaling, shared sockets and schedules."""
