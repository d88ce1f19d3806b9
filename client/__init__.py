"""wqueue: distribute many tasks over many workers."""
