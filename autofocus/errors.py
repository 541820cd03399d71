"""Errors of the service itself; devices and models bring their own families.

AutofocusError
├── ConfigError     the rig file is wrong: correct it and start again
├── RequestError    what was asked for cannot be done on this rig (HTTP 422)
├── BusyError       another run has the microscope (HTTP 409)
├── RunNotFound     no run has this id (HTTP 404)
├── DataError       images, labels or features that no head can be made of (HTTP 422)
├── UploadTooLarge  a request body beyond the limit (HTTP 413)
└── StorageError    the folder of runs cannot be written (HTTP 507)

A verdict other than ``locked`` is an answer, never one of these.
"""


class AutofocusError(Exception):
    """Base of every error raised by the ``autofocus`` package."""


class ConfigError(AutofocusError):
    """A rig file that cannot be used; the message names the file, the key and what to write."""


class RequestError(AutofocusError):
    """A well-formed request that this rig must refuse, with the value and the bound it breaks."""


class BusyError(AutofocusError):
    """Another run has the microscope.

    Parameters
    ----------
    run_id : str
        The run to wait for or to abort.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id} has the microscope; wait for it or abort it with DELETE /runs/{run_id}"
        )
        self.run_id = run_id


class RunNotFound(AutofocusError):  # noqa: N818 - reads as what happened
    """No run has this id."""


class DataError(AutofocusError):
    """Images, labels or features of a lab that cannot be used; names the stack, file or row."""


class UploadTooLarge(AutofocusError):  # noqa: N818 - reads as what happened
    """A request body with more bytes than the service takes."""


class StorageError(AutofocusError):
    """The folder of runs cannot be written: free the disk, or name another folder."""
