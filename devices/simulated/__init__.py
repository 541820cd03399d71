"""A simulated widefield microscope: pupil optics, seeded specimens, a camera and its stages."""
