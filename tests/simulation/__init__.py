"""A deterministic simulator: the real cores of manager and workers in virtual time."""
