"""The worker: runs tasks on one machine."""
