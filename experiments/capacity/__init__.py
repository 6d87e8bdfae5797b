"""Capacity: how many GPUs, for how long, at what cost. `palaestra plan` prints it."""
