"""The PyTorch frontend: nn.Module, ExportedProgram or .pt2 file -> Graph. torch is imported when it is used."""

from diptych.frontends.torch.lower import Context, converts
from diptych.frontends.torch.source import TorchSource, source

__all__ = ["Context", "TorchSource", "converts", "source"]
