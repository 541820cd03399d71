"""Commands of the terminal that need no microscope, one file each."""
