"""Compile a PyTorch module and hold its answers against PyTorch's."""

import torch

import diptych
from diptych.compare import demo
from diptych.compare.demo.network import digits

net, _ = digits()
x = torch.from_numpy(demo().samples.inputs["data"][:8])

model = diptych.compile(net, (x,))
with torch.inference_mode():
    expected = net(x)
torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-6)
print(model.describe())
print("same answers as PyTorch")
