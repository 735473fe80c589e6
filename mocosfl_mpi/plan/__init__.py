"""What a run will need, before it is queued: memory, time, simulated traffic, room on the disk."""
