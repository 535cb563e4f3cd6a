"""Write a compiled model to one file and open it again: no framework is needed where it runs."""

import tempfile
import time
from pathlib import Path

import numpy as np

import diptych
from diptych.compare import demo

subject = demo()
x = subject.inputs["data"]
model = diptych.compile(diptych.load(subject.symbol, subject.params), {"data": x})

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.diptych"
    model.save(path)
    start = time.perf_counter()
    opened = diptych.open(path)
    answer = opened(x)
    took = time.perf_counter() - start
    assert np.array_equal(answer, model(x))
    print(f"{path.stat().st_size / 1e3:.0f} kB; opened and answered in {took * 1e3:.0f} ms: a {int(answer.argmax())}")
