"""What a recorded federation would have taken on other devices and networks: profiles, model, tables."""
