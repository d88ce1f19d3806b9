"""The deciding half of the manager: events in, effects out, no I/O."""
