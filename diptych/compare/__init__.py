"""`diptych compare`: one model on every engine, each in its own process: are the answers right, and what do they cost?"""

from diptych.compare.demo.subject import demo
from diptych.compare.engines import ENGINES, Engine
from diptych.compare.measure import Settings, compare
from diptych.compare.report import Report, Row
from diptych.compare.subject import InputSpec, Samples, Subject, parse_input, random_inputs

__all__ = [
    "ENGINES",
    "Engine",
    "InputSpec",
    "Report",
    "Row",
    "Samples",
    "Settings",
    "Subject",
    "compare",
    "demo",
    "parse_input",
    "random_inputs",
]
