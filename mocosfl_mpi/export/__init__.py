"""What a run recorded, and what it trained, in the formats of other tools (interchange.md)."""
