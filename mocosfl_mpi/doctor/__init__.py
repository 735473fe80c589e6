"""``mocosfl doctor``: what on this machine would spoil or slow down a run, and how to mend it."""
