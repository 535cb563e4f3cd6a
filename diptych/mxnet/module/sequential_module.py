"""SequentialModule: modules one after another, each on the outputs of the one before."""

from __future__ import annotations

import logging
from typing import Any

from diptych.mxnet.initializer import Uniform
from diptych.mxnet.io import DataBatch, DataDesc
from diptych.mxnet.module.base_module import BaseModule

__all__ = ["SequentialModule"]


class SequentialModule(BaseModule):
    """A chain of modules. `add(module, take_labels=True)` for those that need the labels, `auto_wiring=True` for those
    whose data names differ from the names of the outputs before them."""

    META_TAKE_LABELS = "take_labels"
    META_AUTO_WIRING = "auto_wiring"

    def __init__(self, logger: Any = logging) -> None:
        super().__init__(logger)
        self._modules: list[Any] = []
        self._metas: list[dict[str, Any]] = []
        self._label_shapes: Any = None

    def add(self, module: Any, **kwargs: Any) -> SequentialModule:
        """Add a module to the end of the chain."""
        if unknown := set(kwargs) - {self.META_TAKE_LABELS, self.META_AUTO_WIRING}:
            raise AssertionError(f'Unknown meta "{sorted(unknown)[0]}", a typo?')
        self._modules.append(module)
        self._metas.append(kwargs)
        self.binded = self.params_initialized = self.optimizer_initialized = False
        return self

    def _chain(self) -> list[Any]:
        if not self._modules:
            raise AssertionError("Attempting to use an empty SequentialModule; add modules first")
        return self._modules

    @property
    def data_names(self) -> Any:
        """Names of the data of the first module."""
        return self._modules[0].data_names if self._modules else []

    @property
    def output_names(self) -> Any:
        """Names of the outputs of the last module."""
        return self._modules[-1].output_names if self._modules else []

    @property
    def data_shapes(self) -> Any:
        """Descriptions of the data of the first module."""
        return self._chain()[0].data_shapes

    @property
    def label_shapes(self) -> Any:
        """Descriptions of the labels; None when no module takes them."""
        return self._label_shapes

    @property
    def output_shapes(self) -> Any:
        """Names and shapes of the outputs of the last module."""
        return self._chain()[-1].output_shapes

    def get_params(self) -> Any:
        """(arguments, auxiliary states) of all modules."""
        self._ready()
        args: dict[str, Any] = {}
        aux: dict[str, Any] = {}
        for m in self._modules:
            a, b = m.get_params()
            args.update(a)
            aux.update(b)
        return args, aux

    def init_params(self, initializer: Any = Uniform(0.01), arg_params: Any = None, aux_params: Any = None,  # noqa: B008
                    allow_missing: bool = False, force_init: bool = False, allow_extra: bool = False) -> None:  # fmt: skip
        """Give parameters their first values."""
        if self.params_initialized and not force_init:
            return
        if not self.binded:
            raise AssertionError("init_params: bind() comes before, it gives the shapes")
        owner: dict[str, int] = {}
        for i, m in enumerate(self._modules):
            m.init_params(initializer, arg_params, aux_params, allow_missing, force_init, allow_extra or len(self._modules) > 1)
            for name in (*m.get_params()[0], *m.get_params()[1]):
                if name in owner:
                    raise AssertionError(f'Duplicated parameter names: "{name}" in layer {i} ({type(m)}) is already used in layer '
                                         f"{owner[name]} ({type(self._modules[owner[name]])}).")  # fmt: skip
                owner[name] = i
        self.params_initialized = True

    def bind(self, data_shapes: Any, label_shapes: Any = None, for_training: bool = True, inputs_need_grad: bool = False,
             force_rebind: bool = False, shared_module: Any = None, grad_req: Any = "write") -> None:  # fmt: skip
        """Bind all modules, each for the outputs of the one before."""
        if self.binded and not force_rebind:
            self.logger.warning("bound already, this bind() does nothing (force_rebind=True binds again)")
            return
        if inputs_need_grad and not for_training:
            raise AssertionError("inputs_need_grad needs for_training")
        if shared_module is not None:
            raise AssertionError("SequentialModule takes no shared_module")
        self.for_training, self.inputs_need_grad = for_training, inputs_need_grad
        shapes, labelled = data_shapes, False
        for i, (m, meta) in enumerate(zip(self._chain(), self._metas)):
            takes = bool(meta.get(self.META_TAKE_LABELS))
            labelled |= takes
            if meta.get(self.META_AUTO_WIRING):
                if len(m.data_names) != len(shapes):
                    raise AssertionError(f"module {i} takes {len(m.data_names)} arrays, the one before gives {len(shapes)}")
                shapes = [DataDesc(n, s[1]) for n, s in zip(m.data_names, shapes)]
            m.bind(shapes, label_shapes if takes else None, for_training, bool(for_training and (inputs_need_grad or i)),
                   force_rebind, None, grad_req)  # fmt: skip
            shapes = m.output_shapes
        self._label_shapes = label_shapes if labelled else None
        self.binded = True

    def init_optimizer(self, kvstore: Any = "local", optimizer: Any = "sgd", optimizer_params: Any = (("learning_rate", 0.01),),
                       force_init: bool = False) -> None:  # fmt: skip
        """Choose the optimizer of all modules."""
        self._ready()
        if self.optimizer_initialized and not force_init:
            self.logger.warning("the optimizer is there already (force_init=True makes another)")
            return
        for m in self._modules:
            m.init_optimizer(kvstore, optimizer, optimizer_params, force_init)
        self.optimizer_initialized = True

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Run the chain."""
        self._ready()
        batch = DataBatch(data_batch.data, data_batch.label, data_batch.pad, data_batch.index,
                          provide_data=data_batch.provide_data, provide_label=data_batch.provide_label)  # fmt: skip
        for i, m in enumerate(self._modules):
            m.forward(batch, is_train)
            if i + 1 < len(self._modules):
                following = self._modules[i + 1]
                batch.data = m.get_outputs()
                batch.provide_data = [DataDesc(n, x.shape) for n, x in zip(following.data_names, batch.data)]

    def backward(self, out_grads: Any = None) -> None:
        """Carry gradients back through the chain."""
        self._ready()
        for i in range(len(self._modules) - 1, -1, -1):
            self._modules[i].backward(out_grads)
            if i:
                out_grads = self._modules[i].get_input_grads()

    def update(self) -> None:
        """Update the parameters of all modules."""
        self._ready(optimizer=True)
        for m in self._modules:
            m.update()

    def get_outputs(self, merge_multi_context: bool = True) -> Any:
        """The outputs of the last module."""
        self._ready()
        return self._modules[-1].get_outputs(merge_multi_context)

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        """The gradients of the data of the first module."""
        self._ready()
        return self._modules[0].get_input_grads(merge_multi_context)

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        """Count the outputs of the modules that take labels."""
        self._ready()
        for m, meta in zip(self._modules, self._metas):
            if meta.get(self.META_TAKE_LABELS):
                m.update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        """Let a Monitor look at the values of all modules."""
        for m in self._chain():
            m.install_monitor(mon)
