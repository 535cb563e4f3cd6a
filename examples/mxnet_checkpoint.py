"""Load an MXNet checkpoint without MXNet and classify images that its training did not see."""

import numpy as np

import diptych
from diptych.compare import demo

subject = demo()  # a checkpoint that real MXNet 1.9.1 wrote, and 360 held-out images of handwritten digits
images, labels = subject.samples.inputs["data"], subject.samples.labels

source = diptych.load(subject.symbol, subject.params)
model = diptych.compile(source, {"data": images.shape})
probabilities = model(images)

right = int((probabilities.argmax(axis=1) == labels).sum())
print(model)
print(f"{right} of {len(labels)} right; probabilities sum to 1: {np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)}")
