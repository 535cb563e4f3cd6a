"""`mx.contrib.svrg_optimization`: training with gradients of less variance."""

from diptych.mxnet.contrib.svrg_optimization import svrg_module
from diptych.mxnet.contrib.svrg_optimization.svrg_module import SVRGModule

__all__ = ["SVRGModule", "svrg_module"]
