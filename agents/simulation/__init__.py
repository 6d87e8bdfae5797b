"""Engines without a model that take the time that one would: a discrete-event model of continuous batching.

`batch` is one engine, step by step; `hardware` says what a step costs, by what was measured or from data sheets.
"""

from agents.simulation.batch import Batch, Costs, Job, Limits
from agents.simulation.hardware import Hardware, load_hardware

__all__ = ["Batch", "Costs", "Hardware", "Job", "Limits", "load_hardware"]
