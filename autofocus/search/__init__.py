"""Where to look next: pure generators over readings. See `protocol` for the conversation."""
