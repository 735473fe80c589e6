"""Runs as they go on, seen from outside: what their files say by now, on a terminal or as a page (watch.md)."""
