"""The main server (trunk, momentum trunk, feature memory) and the fed server (averaging)."""
