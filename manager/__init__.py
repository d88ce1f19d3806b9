"""The manager: the daemon that owns the queue."""
