"""Errors of the service itself; devices and models bring their own families.

AutofocusError
├── ConfigError     the rig file is wrong: correct it and start again
├── RequestError    what was asked for cannot be done on this rig (HTTP 422)
├── BusyError       another run, z-stack or calibration has the microscope (HTTP 409)
├── NoFocusCurve    what the microscope sees cannot be calibrated with (HTTP 409)
├── RunNotFound     no run has this id (HTTP 404)
├── StackNotFound   no z-stack has this id (HTTP 404)
├── HeadNotFound    no head has this name (HTTP 404)
├── CalibrationNotFound  no calibration has this id (HTTP 404)
├── FittingBusy     another head is being fitted (HTTP 409)
├── DataError       images, labels or features that no head can be made of (HTTP 422)
├── ClusterError    Dask is not installed, or its cluster cannot be used
├── UploadTooLarge  a request body beyond the limit (HTTP 413)
└── StorageError    a folder of runs or z-stacks cannot be written (HTTP 507)

A verdict other than ``locked`` is an answer, never one of these.
"""


class AutofocusError(Exception):
    """Base of every error raised by the ``autofocus`` package."""


class ConfigError(AutofocusError):
    """A rig file that cannot be used; the message names the file, the key and what to write."""


class RequestError(AutofocusError):
    """A well-formed request that this rig must refuse, with the value and the bound it breaks."""


class BusyError(AutofocusError):
    """Another run, z-stack or calibration has the microscope.

    Parameters
    ----------
    run_id, stack_id, calibration_id : str, optional
        What to wait for or to abort; one of the three.
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        stack_id: str | None = None,
        calibration_id: str | None = None,
    ) -> None:
        who = f"z-stack {stack_id}" if stack_id else f"calibration {calibration_id}"
        super().__init__(
            f"run {run_id} has the microscope; wait for it or abort it with DELETE /runs/{run_id}"
            if run_id
            else f"{who} has the microscope; wait for it or end it with POST /stop"
        )
        self.who = {"run_id": run_id, "stack_id": stack_id, "calibration_id": calibration_id}


class NoFocusCurve(AutofocusError):  # noqa: N818 - reads as what happened
    """No focus curve to calibrate with: no proven peak, or not enough around it; says why."""


class RunNotFound(AutofocusError):  # noqa: N818 - reads as what happened
    """No run has this id."""


class StackNotFound(AutofocusError):  # noqa: N818 - reads as what happened
    """No z-stack has this id, or it has no images."""


class HeadNotFound(AutofocusError):  # noqa: N818 - reads as what happened
    """No head has this name."""


class CalibrationNotFound(AutofocusError):  # noqa: N818 - reads as what happened
    """No calibration has this id."""


class FittingBusy(AutofocusError):  # noqa: N818 - reads as what happened
    """Another head is being fitted; says which."""


class DataError(AutofocusError):
    """Images, labels or features of a lab that cannot be used; names the stack, file or row."""


class ClusterError(AutofocusError):
    """A Dask cluster that cannot be used; says what to install or to start."""


class UploadTooLarge(AutofocusError):  # noqa: N818 - reads as what happened
    """A request body with more bytes than the service takes."""


class StorageError(AutofocusError):
    """A folder of results cannot be written: free the disk, or name another folder."""
