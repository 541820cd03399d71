"""The conversation between a search and whoever drives it.

A search is a generator: it yields a `Pass`, is sent one `Reading` per position of that pass, in
the same order, and returns a `SearchResult`. It touches no device, clock, log or random number, so
a live run, a replay and a remote client that sends its readings over HTTP all drive the same code
and get the same answer.

A pass that may be swept is taken as one burst, where stage and camera can do that together. Whoever
cannot (a replay, a remote client, most stages) visits its positions one by one and sends readings
all the same; the search judges both alike.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum


class Verdict(str, Enum):
    """How a run ended; listed in the order in which they are tried. Only LOCKED keeps the peak."""

    ABORTED = "aborted"
    BUDGET = "budget"
    STALE = "stale"
    DARK = "dark"
    SATURATED = "saturated"
    FLAT = "flat"
    EDGE = "edge"
    AMBIGUOUS = "ambiguous"
    WORSE_THAN_START = "worse_than_start"
    LOCKED = "locked"


class Purpose(str, Enum):
    """Why a pass is made; for people reading a curve, never for control."""

    START = "start"
    COARSE = "coarse"
    EXTEND = "extend"
    FINE = "fine"
    CONFIRM = "confirm"


@dataclass(frozen=True)
class Pass:
    """Positions to visit in this order, one exposure each.

    Attributes
    ----------
    z_um : tuple of float
        Absolute positions, um. Monotonic, so a driver may move on while the last frame is scored.
    purpose : Purpose
        What the pass is for.
    swept : bool
        The stage may step through the positions by itself while the camera takes a burst.
    """

    z_um: tuple[float, ...]
    purpose: Purpose
    swept: bool = False


@dataclass(frozen=True)
class Reading:
    """One exposure, as the scorer saw it.

    Attributes
    ----------
    z_um : float
        Position read back from the stage, um; in a sweep, where its sequence put the stage.
    score : float
        Focus score, higher is sharper. Its scale belongs to the scorer.
    referee : float or None
        A classical measure of the same frame, higher is sharper; None when the scorer has none.
    defocus_dof : float or None
        The scorer's estimate of |z - z_in_focus| in depths of field, if it has one.
    defocus_sd_dof : float or None
        How far off that may be, root mean square, if the scorer tells.
    coarse_contrast : float or None
        How much the smoothed frame varies, which is seen from farther away than detail; None when
        no referee watches, or does not know the sampling.
    dark : bool
        Nothing in the frame stands above its offset and noise.
    saturated : bool
        Too much of the frame sits at the camera's maximum to trust the score.
    out_of_distribution : bool
        The frame is far from what the scorer was fitted on.
    fingerprint : str
        Equal for frames with identical pixels, different otherwise; "" when unknown.
    """

    z_um: float
    score: float
    referee: float | None = None
    defocus_dof: float | None = None
    defocus_sd_dof: float | None = None
    coarse_contrast: float | None = None
    dark: bool = False
    saturated: bool = False
    out_of_distribution: bool = False
    fingerprint: str = ""


@dataclass(frozen=True)
class Expectation:
    """Where focus is expected, from an earlier lock or a map: a normal distribution.

    Attributes
    ----------
    z_um : float
        Its middle, um.
    sigma_um : float
        One standard deviation, um, positive.
    """

    z_um: float
    sigma_um: float


@dataclass(frozen=True)
class FocusCurve:
    """Score against defocus, as measured on this rig with this objective and channel.

    Attributes
    ----------
    defocus_um : tuple of float
        z - z_in_focus, um, rising.
    score : tuple of float
        Mean score there, of the scorer that the run uses.
    noise : float
        Standard deviation of one score about the curve.
    repeatability_um : float
        Standard deviation of the stage's arrival at one position, um.
    """

    defocus_um: tuple[float, ...]
    score: tuple[float, ...]
    noise: float
    repeatability_um: float


@dataclass(frozen=True)
class SearchSettings:
    """What a search may do. All lengths in um.

    Attributes
    ----------
    start_z_um : float
        Where the stage is now; read first, and returned to unless the verdict is ``locked``.
    z_min_um, z_max_um : float
        Positions never to leave, bounds included.
    center_um, range_um : float
        The first pass covers ``center_um`` +- ``range_um / 2``, cut at the bounds.
    dof_um : float
        Total depth of field; steps and tolerances are multiples of it.
    tolerance_um : float
        How closely the peak is wanted.
    direction : int
        +1 or -1: passes run this way, so that they end nearer to the specimen than they began.
    max_extensions : int
        How often the range may be continued past an end that holds the best score.
    coarse_step_um : float or None
        Distance between coarse positions; None chooses one from the depth of field.
    absolute : bool
        The score has absolute meaning: 1 in focus, 0 hopeless, on every specimen.
    expected : Expectation or None
        Where focus should be; None when nothing is known beyond the range.
    calibrated : FocusCurve or None
        The focus curve of this rig, once it has been calibrated.
    """

    start_z_um: float
    z_min_um: float
    z_max_um: float
    center_um: float
    range_um: float
    dof_um: float
    tolerance_um: float
    direction: int = 1
    max_extensions: int = 2
    coarse_step_um: float | None = None
    absolute: bool = False
    expected: Expectation | None = None
    calibrated: FocusCurve | None = None


@dataclass(frozen=True)
class SearchResult:
    """The answer of a search.

    Attributes
    ----------
    verdict : Verdict
        Never ABORTED or BUDGET: only the driver knows of those.
    reason : str
        One sentence with the numbers that decided.
    z_um : float or None
        The best estimate of the in-focus plane, also for refusals that have one; None without one.
    z_uncertainty_um : float or None
        One standard deviation of ``z_um``.
    score : float or None
        Score expected at ``z_um`` by the fit.
    confidence : float
        Probability that ``z_um`` is within half a depth of field of the in-focus plane, 0..1;
        0 without a ``z_um``.
    start_score, final_score : float or None
        The start frame and the frame measured last at ``z_um``.
    left_out : tuple of int
        Which readings of the run, counted from 0, it is not based on: those of a sweep that were
        taken again one by one, or not believed.
    """

    verdict: Verdict
    reason: str
    z_um: float | None = None
    z_uncertainty_um: float | None = None
    score: float | None = None
    confidence: float = 0.0
    start_score: float | None = None
    final_score: float | None = None
    left_out: tuple[int, ...] = ()

    @property
    def locked(self) -> bool:
        """Whether the stage may stay at ``z_um``."""
        return self.verdict is Verdict.LOCKED


Search = Generator[Pass, tuple[Reading, ...], SearchResult]
