"""Who learns: samples, advantages, losses, and the trainer.

Imports without torch; the modules that compute with tensors are imported where they are used.
"""

from agents.learning.samples import Pair, Sample, SampleError, refuse
from agents.learning.settings import LossSettings, make_loss

__all__ = ["LossSettings", "Pair", "Sample", "SampleError", "make_loss", "refuse"]
