"""The NumPy target: interprets a Graph in float32 or float64. The living definition of every operator."""

from diptych.targets.numpy.interpret import interpret

__all__ = ["interpret"]
