"""What concerns several processes at once: order, stops, rollouts, numbers, shared sockets and calendars."""
