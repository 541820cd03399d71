"""Hardware behind MMCore: guarded moves and frames. Knows nothing of focus or models."""
