"""Models for images, by the names of MXNet's model zoo."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon.model_zoo.vision import alexnet as _alexnet
from diptych.mxnet.gluon.model_zoo.vision import densenet as _densenet
from diptych.mxnet.gluon.model_zoo.vision import mobilenet as _mobilenet
from diptych.mxnet.gluon.model_zoo.vision import resnet as _resnet
from diptych.mxnet.gluon.model_zoo.vision import squeezenet as _squeezenet
from diptych.mxnet.gluon.model_zoo.vision import vgg as _vgg
from diptych.mxnet.gluon.model_zoo.vision.alexnet import *  # noqa: F403
from diptych.mxnet.gluon.model_zoo.vision.densenet import *  # noqa: F403
from diptych.mxnet.gluon.model_zoo.vision.inception import *  # noqa: F403
from diptych.mxnet.gluon.model_zoo.vision.inception import inception_v3
from diptych.mxnet.gluon.model_zoo.vision.mobilenet import *  # noqa: F403
from diptych.mxnet.gluon.model_zoo.vision.resnet import *  # noqa: F403
from diptych.mxnet.gluon.model_zoo.vision.squeezenet import *  # noqa: F403
from diptych.mxnet.gluon.model_zoo.vision.vgg import *  # noqa: F403

_models: dict[str, Any] = {
    **{f"resnet{n}_v{v}": getattr(_resnet, f"resnet{n}_v{v}") for n in (18, 34, 50, 101, 152) for v in (1, 2)},
    **{f"vgg{n}{bn}": getattr(_vgg, f"vgg{n}{bn}") for n in (11, 13, 16, 19) for bn in ("", "_bn")},
    "alexnet": _alexnet.alexnet,
    **{f"densenet{n}": getattr(_densenet, f"densenet{n}") for n in (121, 161, 169, 201)},
    "squeezenet1.0": _squeezenet.squeezenet1_0, "squeezenet1.1": _squeezenet.squeezenet1_1, "inceptionv3": inception_v3,
    **{f"mobilenet{m}": getattr(_mobilenet, f"mobilenet{m.replace('.', '_')}") for m in ("1.0", "0.75", "0.5", "0.25")},
    **{f"mobilenetv2_{m}": getattr(_mobilenet, f"mobilenet_v2_{m.replace('.', '_')}") for m in ("1.0", "0.75", "0.5", "0.25")},
}  # fmt: skip


def get_model(name: str, **kwargs: Any) -> Any:
    """A model by name; `pretrained=True` takes its parameters from the local store.

    >>> get_model("resnet18_v1", classes=10).output
    Dense(512 -> 10, linear)
    """
    found = _models.get(name.lower())
    if found is None:
        listed = "\n\t".join(sorted(_models))
        raise ValueError(f"no model is named {name}; there are\n\t{listed}")
    return found(**kwargs)
