"""Measurements anyone can repeat; each is a command `autofocus bench ...`."""
