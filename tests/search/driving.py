"""A search driven without hardware: settings, and the loop that answers it."""

from autofocus.search.protocol import Pass, Reading, SearchSettings
from autofocus.search.strategies import STRATEGIES


def settings_for(**changes) -> SearchSettings:
    base = {
        "start_z_um": 0.0,
        "z_min_um": -100.0,
        "z_max_um": 100.0,
        "center_um": 0.0,
        "range_um": 50.0,
        "dof_um": 1.0,
        "tolerance_um": 0.25,
    }
    return SearchSettings(**{**base, **changes})


def drive(name, search_settings, read):
    """Answer the search from ``read(z, i) -> Reading``; give result, readings and passes."""
    search = STRATEGIES[name].search(search_settings)
    readings: list[Reading] = []
    passes: list[Pass] = []
    step = next(search)
    while True:
        passes.append(step)
        group = tuple(read(z, len(readings) + i) for i, z in enumerate(step.z_um))
        readings += group
        try:
            step = search.send(group)
        except StopIteration as done:
            return done.value, readings, passes
