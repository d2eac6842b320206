"""All that concerns several processes at once: selectors, dependencies, stops, removals, rolling restarts, scaling, sockets, schedules."""
