"""``python -m autofocus``: the command, where its script is not on the PATH."""

from autofocus.cli import main

main()
