"""What `reiqa-compact` is known to say of a frame: every number of the search that belongs to it.

Measured with the weights that ship, on simulated specimens of seven kinds through five objectives
(seeds 3 900 000 and up, which neither training nor the published benchmark uses), by

    autofocus bench curves -o OUT

which prints this table anew: run it after every change of the weights. Distances are in depths of
field. A head of a lab's own has the same label, 1 in focus and 0 far away, and so the same meaning.
"""

from __future__ import annotations

# Mean and standard deviation over specimens: height of the peak above the level far away. Measured:
# (0.899, 0.152) and (0.032, 0.033); both as of a head before (decision 23), which is near.
HEIGHT = (0.87, 0.15)
LEVEL = (0.03, 0.06)
# Of a score where there is nothing to focus on: between far from focus, (0.052, 0.019), and the
# empty frames of decision 20, (0.152, 0.088); its spread wider than both.
NOTHING = (0.12, 0.12)
# Scatter of a reading about the bell that fits its specimen, departures from the bell included: a
# clean specimen, a usual one, a difficult one. Larger than measured (0.018, 0.024, 0.046),
# because neighbouring readings depart together, and a bell can follow a few of them.
NOISES = (0.027, 0.05, 0.12)
# Half widths at half height: median, and standard deviation of the natural logarithm. Measured:
# (2.03, 0.25); far wider, because thick specimens are rare among those.
HALF_WIDTH_DOF = (2.27, 0.36)
# The bells are 1 / (1 + |d / w|^p): peaked with long tails, as the label is, or round.
EXPONENTS = (1.5, 2.0, 3.0)
# A frame that scores less than the first is not in focus; from the second on a closer look pays;
# one that scores less than the third needs a witness: a few sharp things on another plane come
# near to it. With default@4206736f, 2 of the 14 locks from 0.55 to it were on such a plane, and 0
# of 432 above; with default@5d206872 99 % of humps more than 6 depths of field from focus scored
# at most 0.55, with default@43e4467e 0.19, with default@e52172fb 0.21, with default@be9d2b7b 0.17,
# with default@396b308b 0.16.
LEAST_SCORE = 0.25
HUMP_SCORE = 0.3
EVIDENT_SCORE = 0.6
# From which on it is in focus by itself, most of the range unread and nobody expecting focus
# there. With default@4206736f, of 280 locks between 0.65 and 0.75 four were on another plane, 1 to
# 14 depths of field off; of 3303 above, none. Heads since then (decision 20) score peaks a
# twentieth higher, and beads up to 0.75 still four depths of field away.
ALONE_SCORE = 0.8
