"""Observe once: sums over calibration images from which every rewrite is planned, and most are solved.

For the input of each weighted layer, by class: how many positions were seen, their sum and their second-moment (Gram)
matrix over input channel x kernel tap. For each channel of such an input: the sum of |x| (DropNet's score, Tan and
Motani 2020, arXiv 2207.06646), the number of zeros (APoZ, Hu et al. 2016, arXiv 1607.03250), and how much the loss
changes to first order without the channel (Molchanov et al. 2017, arXiv 1611.06440). For each output channel: the
squared gradient of the loss with labels drawn from the network's own scores, so that an output error e costs about
1/2 F e^2 nats (the diagonal of the Fisher information; Martens 2020, arXiv 1412.1193, sec. 5).

All are sums in float64, so evidence over any set of classes is a sum of what was kept, and evidence of parts of the
images adds up to that of the whole: `of(classes)` and `merged(parts)` touch no data.
"""

from slimwright.evidence.memory_plan import (
    Portions,
    narrowest,
    observing_bytes,
    portions_within,
    sums_bytes,
    together_within,
)
from slimwright.evidence.observing import observe
from slimwright.evidence.store import load_evidence
from slimwright.evidence.sums import FORMAT, Evidence, LayerSums, merged
from slimwright.evidence.windows import (
    MOST_TAPS,
    THIN,
    add_moments,
    add_outer,
    columns,
    groups_of,
    padding_of,
    taps,
)

__all__ = [
    "FORMAT",
    "MOST_TAPS",
    "THIN",
    "Evidence",
    "LayerSums",
    "Portions",
    "add_moments",
    "add_outer",
    "columns",
    "groups_of",
    "load_evidence",
    "merged",
    "narrowest",
    "observe",
    "observing_bytes",
    "padding_of",
    "portions_within",
    "sums_bytes",
    "taps",
    "together_within",
]
