"""The built-in demonstration: a small network trained in real MXNet on real handwritten digits, and its PyTorch twin."""
