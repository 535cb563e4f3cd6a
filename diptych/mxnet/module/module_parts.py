"""Names and shapes of a Module, its checkpoints, and the states of its optimizer in files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from diptych.mxnet.module.base_module import BaseModule

__all__ = ["ModuleParts"]


class ModuleParts(BaseModule):
    """The part of Module that tells what it is, and writes and reads files; Module fills these."""

    _symbol: Any
    _kvstore: Any
    _updater: Any
    _update_on_kvstore: Any
    _data_names: list[str]
    _label_names: list[str]
    _output_names: list[str]
    _exec_group: Any
    _data_shapes: Any
    _label_shapes: Any

    def save_checkpoint(self, prefix: str, epoch: int, save_optimizer_states: bool = False, remove_amp_cast: bool = True) -> None:
        """Write symbol, parameters and (if asked for) the states of the optimizer."""
        self._symbol.save(f"{prefix}-symbol.json", remove_amp_cast=remove_amp_cast)
        name = f"{prefix}-{epoch:04d}.params"
        self.save_params(name)
        logging.info('Saved checkpoint to "%s"', name)
        if save_optimizer_states:
            states = f"{prefix}-{epoch:04d}.states"
            self.save_optimizer_states(states)
            logging.info('Saved optimizer state to "%s"', states)

    def save_optimizer_states(self, fname: str) -> None:
        """Write the states of the optimizer."""
        self._ready(optimizer=True)
        if self._update_on_kvstore:
            self._kvstore.save_optimizer_states(fname)
        else:
            Path(fname).write_bytes(self._updater.get_states())

    def load_optimizer_states(self, fname: str) -> None:
        """Read the states of the optimizer."""
        self._ready(optimizer=True)
        if self._update_on_kvstore:
            self._kvstore.load_optimizer_states(fname)
        else:
            self._updater.set_states(Path(fname).read_bytes())

    # -- what it is -------------------------------------------------------------------------------------------
    @property
    def data_names(self) -> list[str]:
        """Names of the data."""
        return self._data_names

    @property
    def label_names(self) -> list[str]:
        """Names of the labels."""
        return self._label_names

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return list(self._output_names)

    def _bound(self) -> Any:
        if not self.binded:
            raise AssertionError("the module is not bound; call bind first")
        return self._exec_group

    @property
    def data_shapes(self) -> Any:
        """Descriptions of the data it is bound for."""
        self._bound()
        return self._data_shapes

    @property
    def label_shapes(self) -> Any:
        """Descriptions of the labels it is bound for."""
        self._bound()
        return self._label_shapes

    @property
    def output_shapes(self) -> Any:
        """Names and shapes of the outputs."""
        return self._bound().get_output_shapes()
