"""What `reiqa-compact` is known to say of a frame: every number of the search that belongs to it.

Measured with the weights that ship, on simulated specimens of seven kinds through five objectives
(seeds 3 900 000 and up, which neither training nor the published benchmark uses), by

    autofocus bench curves -o OUT

which prints this table anew: run it after every change of the weights. Distances are in depths of
field. A head of a lab's own has the same label, 1 in focus and 0 far away, and so the same meaning.
"""

from __future__ import annotations

# Mean and standard deviation over specimens: height of the peak above the level far away. Measured:
# (0.789, 0.146) and (0.075, 0.074); the height a little wider.
HEIGHT = (0.79, 0.17)
LEVEL = (0.07, 0.07)
# Of a score where there is nothing to focus on; wider than far from focus, (0.08, 0.05), because no
# empty field is among what was measured.
NOTHING = (0.12, 0.12)
# Scatter of a reading about the bell that fits its specimen, departures from the bell included: a
# clean specimen, a usual one, a difficult one. Larger than measured (0.020, 0.027, 0.046),
# because neighbouring readings depart together, and a bell can follow a few of them.
NOISES = (0.02, 0.035, 0.075)
# Half widths at half height: median, and standard deviation of the natural logarithm. Measured:
# (2.26, 0.30); wider, because thick specimens are rare among those.
HALF_WIDTH_DOF = (2.4, 0.36)
# The bells are 1 / (1 + |d / w|^p): peaked with long tails, as the label is, or round.
EXPONENTS = (1.5, 2.0, 3.0)
# A frame that scores less than the first is not in focus; from the second on a closer look pays;
# one that scores less than the third needs a witness: a few sharp things on another plane come near
# to it. With 0.55, 2 of the 14 locks between the two were on such a plane, and 0 of 432 above.
LEAST_SCORE = 0.25
HUMP_SCORE = 0.3
EVIDENT_SCORE = 0.6
# From which on it is in focus by itself, most of the range unread and nobody expecting focus there.
# Of 280 locks between 0.65 and this (seeds from 5, 6 and 7 million and some of tuning) four were on
# another plane, 1 to 14 depths of field off; of 3303 above, none.
ALONE_SCORE = 0.75
