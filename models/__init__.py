"""An image in, a focus score out. Knows nothing of microscopes."""
