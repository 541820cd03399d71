"""How the stage is moved: hops, the side of arrival, and every way a move can fail."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import pytest
from conftest import Rig
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from devices import (
    AcquisitionSettings,
    DeviceConfigError,
    DeviceError,
    DeviceTimeout,
    Halted,
    LimitError,
    MicroscopeSettings,
    MoveFailed,
    RestoreFailed,
)

MakeRig = Callable[..., Rig]


@pytest.mark.parametrize(
    ("z_um", "says"),
    [
        (math.nan, "z_um = nan is not a position"),
        (100.5, "z_um = 100.5 um is outside the limits -100 to 100 um"),
    ],
)
def test_says_why_a_position_is_refused_and_sends_nothing(
    make_rig: MakeRig, z_um: float, says: str
) -> None:
    rig = make_rig()
    with pytest.raises(LimitError, match=says):
        rig.microscope.move_to(z_um)
    assert rig.ordered_um() == []


def test_sends_one_command_without_a_longest_step(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.microscope.move_to(80)
    assert rig.ordered_um() == [80]


def test_goes_in_hops_no_longer_than_the_longest_step(make_rig: MakeRig) -> None:
    rig = make_rig(max_step_um=10)
    rig.microscope.move_to(25)
    rig.microscope.move_to(4)
    assert rig.ordered_um() == [10, 20, 25, 15, 5, 4]


@pytest.mark.parametrize(
    ("towards", "moves", "ordered"),
    [
        ("+", [10, 20, 12], [10, 20, 9, 12]),
        ("-", [-10, -20, -12], [-10, -20, -9, -12]),
        (None, [10, 20, 12], [10, 20, 9, 12]),
        # The last 3 um are always travelled towards the specimen, also on the first move.
        ("+", [1], [-2, 1]),
        ("-", [10], [13, 10]),
        # Once seated, small steps the right way need no run-up.
        ("+", [10, 10.5, 11], [10, 10.5, 11]),
        # At the limit there is no room to go past it; the limit wins.
        ("+", [-50, -100], [-53, -50, -100, -100]),
        ("+", [-50, -99], [-53, -50, -100, -99]),
    ],
)
def test_arrives_from_the_side_away_from_the_specimen(
    make_rig: MakeRig, towards: str | None, moves: list[float], ordered: list[float]
) -> None:
    rig = make_rig(towards_specimen=towards, backlash_um=3)
    for z_um in moves:
        rig.microscope.move_to(z_um)
    assert rig.ordered_um() == ordered


def test_a_straight_move_takes_up_no_backlash_and_leaves_it_to_the_next(make_rig: MakeRig) -> None:
    rig = make_rig(backlash_um=3, max_step_um=15, settle_ms=300)
    began_s = time.monotonic()
    rig.microscope.move_straight_to(20)
    rig.microscope.move_straight_to(10)
    assert time.monotonic() - began_s < 0.3
    assert rig.ordered_um() == [15, 20, 10]
    rig.microscope.move_to(11)
    assert rig.ordered_um()[3:] == [8, 11]
    with pytest.raises(LimitError):
        rig.microscope.move_straight_to(100.1)
    rig.microscope.halt()
    with pytest.raises(Halted):
        rig.microscope.move_straight_to(12)


def test_takes_up_backlash_again_after_somebody_else_moved_the_stage(make_rig: MakeRig) -> None:
    rig = make_rig(backlash_um=3)
    rig.microscope.move_to(10)
    rig.core.setPosition("Z", 30.0)
    rig.core.setPosition("Z", 20.0)
    rig.microscope.move_to(21)
    assert rig.ordered_um() == [10, 30, 20, 18, 21]


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("refuse", MoveFailed, "axis not referenced"),
        ("stick", MoveFailed, r"sent to 40 um but is at 0 um"),
        ("short", MoveFailed, r"sent to 40 um but is at 20 um"),
        ("away", MoveFailed, "runs the wrong way: it is at -40 um"),
        ("hang", DeviceTimeout, "still busy at 40 um after 300 ms"),
        ("nan", DeviceError, "reports its position as nan"),
    ],
)
def test_a_failed_move_raises_and_stops_the_stage(
    make_rig: MakeRig, fault: str, error: type[DeviceError], says: str
) -> None:
    rig = make_rig(timeout_ms=300 if fault == "hang" else 10_000)
    rig.fault(fault)
    with pytest.raises(error, match=says):
        rig.microscope.move_to(40)
    assert rig.stops() == (0 if fault == "nan" else 1)


def test_a_stage_that_stops_short_is_not_sent_on(make_rig: MakeRig) -> None:
    rig = make_rig(max_step_um=10)
    rig.fault("short")
    with pytest.raises(MoveFailed):
        rig.microscope.move_to(40)
    assert rig.ordered_um() == [10]


def test_says_so_when_a_failing_stage_cannot_even_be_stopped(make_rig: MakeRig) -> None:
    rig = make_rig(timeout_ms=200)
    rig.speed(10)
    rig.fault("no stop")
    with pytest.raises(DeviceTimeout, match=r"stopping the stage failed.*not supported"):
        rig.microscope.move_to(90)


def test_waits_for_a_stage_that_never_says_it_is_busy(make_rig: MakeRig) -> None:
    rig = make_rig(arrival_tolerance_um=0.1)
    rig.speed(60)
    rig.fault("silent")
    assert rig.microscope.move_to(40) == pytest.approx(40, abs=0.1)


@pytest.mark.parametrize("fault", ["nan", "creep"])
def test_a_failure_while_the_stage_settles_stops_it_too(make_rig: MakeRig, fault: str) -> None:
    rig = make_rig(settle_ms=300)

    def disturb() -> None:
        time.sleep(0.1)
        if fault == "nan":
            rig.fault("nan")
        else:
            rig.core.setPosition("Z", 40.0)

    creeping = threading.Thread(target=disturb)
    creeping.start()
    with pytest.raises(DeviceError, match=r"position as nan|was sent to 10 um but is at 40 um"):
        rig.microscope.move_to(10)
    creeping.join()
    assert rig.stops() == 1


def test_halt_stops_a_travelling_stage(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.speed(50)
    answers = []
    presser = threading.Timer(0.3, lambda: answers.append(rig.microscope.halt()))
    presser.start()
    with pytest.raises(Halted, match="on the way to 100 um"):
        rig.microscope.move_to(100)
    presser.join()
    assert answers == ["stopped"]
    stopped_um = rig.microscope.z_um()
    assert 5 < stopped_um < 50
    time.sleep(0.1)
    assert rig.microscope.z_um() == stopped_um


def test_halt_before_the_first_hop_sends_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.microscope.halt()
    with pytest.raises(Halted):
        rig.microscope.move_to(100)
    assert rig.ordered_um() == []


def test_halt_is_pending_when_the_stage_does_not_take_it(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.fault("no stop")
    assert rig.microscope.halt() == "pending"


def test_the_return_waits_for_a_stop_that_is_on_its_way(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.microscope.move_to(30)
    rig.speed(15)
    rig.fault("slow stop")
    with pytest.raises(Halted), rig.microscope.acquisition():  # noqa: PT012
        rig.microscope.move_to(20)
        assert rig.microscope.halt() == "pending"
        rig.microscope.move_to(10)
    # A stop taken only now would have left it between 20 and 30 um.
    assert rig.microscope.z_um() == pytest.approx(30, abs=0.5)


def test_a_second_halt_stops_the_return_too(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.microscope.move_to(90)
    second = threading.Timer(0.3, rig.microscope.halt)
    with (  # noqa: PT012
        pytest.raises(RestoreFailed, match="z: stopped on the way to 90 um"),
        rig.microscope.acquisition(AcquisitionSettings()),
    ):
        rig.microscope.move_to(-90)
        rig.speed(50)
        rig.microscope.halt()
        second.start()
    second.join()
    assert -90 < rig.microscope.z_um() < 0


def test_a_return_that_fails_is_raised_with_what_failed_in_the_run(make_rig: MakeRig) -> None:
    rig = make_rig()
    with pytest.raises(RestoreFailed, match=r"z: .*axis not referenced") as raised:  # noqa: PT012, SIM117
        with rig.microscope.acquisition(AcquisitionSettings(exposure_ms=33)):
            rig.microscope.move_to(10)
            rig.fault("refuse")
            rig.microscope.move_to(20)
    assert isinstance(raised.value.__cause__, MoveFailed)
    assert rig.core.getExposure() == 10


def test_a_run_that_never_moves_leaves_the_stage_alone(make_rig: MakeRig) -> None:
    rig = make_rig(backlash_um=3)
    with rig.microscope.acquisition(AcquisitionSettings(exposure_ms=1)):
        rig.microscope.snap()
    assert rig.ordered_um() == []


def test_a_run_does_not_begin_outside_the_limits(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.core.setPosition("Z", 150.0)
    with (
        pytest.raises(LimitError, match="150 um, outside its limits -100 to 100"),
        rig.microscope.acquisition(AcquisitionSettings()),
    ):
        pytest.fail("the run must not begin")
    assert rig.microscope.move_to(100) == 100


def test_settles_before_it_returns(make_rig: MakeRig) -> None:
    rig = make_rig(settle_ms=120)
    before_s = time.monotonic()
    rig.microscope.move_to(5)
    assert time.monotonic() - before_s >= 0.12


Z_UM = st.one_of(
    st.floats(-120, 120), st.sampled_from([math.nan, math.inf, -math.inf, 100.0, -100.0])
)


@pytest.mark.parametrize("towards", ["+", "-"])
@hypothesis_settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(wanted=st.lists(Z_UM, max_size=6))
def test_whatever_is_asked_the_stage_never_leaves_its_limits(
    make_rig: MakeRig, towards: str, wanted: list[float]
) -> None:
    rig = _shared_rig(make_rig, towards)
    begun = len(rig.ordered_um())
    here_um = rig.microscope.z_um()
    for z_um in wanted:
        try:
            assert rig.microscope.move_to(z_um) == pytest.approx(z_um, abs=1e-9)
        except LimitError:
            assert not -100 <= z_um <= 100
    for ordered_um in rig.ordered_um()[begun:]:
        assert -100 <= ordered_um <= 100
        assert abs(ordered_um - here_um) <= 15 + 1e-9
        here_um = ordered_um


def _shared_rig(make_rig: MakeRig, towards: str) -> Rig:
    """One rig for all examples of a test: loading one for each would take minutes."""
    if not hasattr(make_rig, "shared"):
        make_rig.shared = make_rig(max_step_um=15, backlash_um=4, towards_specimen=towards)
    return make_rig.shared


@pytest.mark.parametrize(
    "wrong",
    [
        {"z_min_um": 5, "z_max_um": 5},
        {"z_max_um": math.nan},
        {"z_min_um": -math.inf},
        {"max_step_um": 0},
        {"backlash_um": -1},
        {"settle_ms": math.nan},
        {"timeout_ms": 0},
        {"arrival_tolerance_um": 0},
        {"towards_specimen": "up"},
    ],
)
def test_refuses_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(DeviceConfigError, match=next(iter(wrong))):
        MicroscopeSettings(config=None, **{"z_min_um": 0, "z_max_um": 10, **wrong})
