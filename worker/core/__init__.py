"""The deciding half of the worker: events in, effects out, no I/O."""
