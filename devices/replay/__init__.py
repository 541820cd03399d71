"""A recorded z-stack as a microscope: a camera and a stepper stage that knows its planes."""

from devices.replay.config import write_config

__all__ = ["write_config"]
