"""Cells made of cells, and the fused layers of the operator RNN."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet import ndarray as nd
from diptych.mxnet import symbol as sym
from diptych.mxnet.initializer import FusedRNN
from diptych.mxnet.rnn.cells import BaseRNNCell, GRUCell, LSTMCell, RNNCell, RNNParams, sequence
from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["BidirectionalCell", "DropoutCell", "FusedRNNCell", "ModifierCell", "ResidualCell", "SequentialRNNCell", "ZoneoutCell"]

_GATES = {"rnn_relu": ("",), "rnn_tanh": ("",), "lstm": ("_i", "_f", "_c", "_o"), "gru": ("_r", "_z", "_o")}


class _Several(BaseRNNCell):
    """Cells of several cells."""

    def __init__(self, prefix: str, params: RNNParams | None) -> None:
        self._cells = []
        super().__init__(prefix, params)
        self._override = params is not None

    def _take(self, cell: BaseRNNCell) -> None:
        if self._override:
            if not cell._own_params:
                raise AssertionError("Either specify params for the outer cell or for the child cells, not both.")
            cell.params._params.update(self.params._params)
        self.params._params.update(cell.params._params)
        self._cells.append(cell)

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """Those of all cells."""
        return [info for c in self._cells for info in c.state_info]

    def begin_state(self, func: Any = None, **kwargs: Any) -> list[Any]:
        """Those of all cells."""
        self._check_free()
        return [s for c in self._cells for s in c.begin_state(func, **kwargs)]

    def unpack_weights(self, args: dict[str, Any]) -> dict[str, Any]:
        """Parameters with the weights of each gate on their own."""
        for c in self._cells:
            args = c.unpack_weights(args)
        return args

    def pack_weights(self, args: dict[str, Any]) -> dict[str, Any]:
        """Parameters as the cells have them."""
        for c in self._cells:
            args = c.pack_weights(args)
        return args


class SequentialRNNCell(_Several):
    """Cells one above another."""

    def __init__(self, params: RNNParams | None = None) -> None:
        super().__init__("", params)

    def add(self, cell: BaseRNNCell) -> None:
        """Put a cell on top."""
        self._take(cell)

    def __call__(self, inputs: Any, states: Any) -> Any:
        """One step."""
        self._counter += 1
        out, at = [], 0
        for c in self._cells:
            if isinstance(c, BidirectionalCell):
                raise AssertionError("a BidirectionalCell cannot be stepped; use unroll")
            n = len(c.state_info)
            inputs, new = c(inputs, states[at : at + n])
            at += n
            out += new
        return inputs, out

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None) -> Any:
        """(outputs, states) of all steps, layer by layer."""
        self.reset()
        states = self.begin_state() if begin_state is None else begin_state
        out, at = [], 0
        for i, c in enumerate(self._cells):
            n = len(c.state_info)
            inputs, new = c.unroll(length, inputs, states[at : at + n], layout, merge_outputs if i == len(self._cells) - 1 else None)
            at += n
            out += new
        return inputs, out


class BidirectionalCell(_Several):
    """One cell from the first step on and one from the last; their outputs side by side."""

    def __init__(self, l_cell: BaseRNNCell, r_cell: BaseRNNCell, params: RNNParams | None = None, output_prefix: str = "bi_") -> None:
        super().__init__("", params)
        self._output_prefix = output_prefix
        self._take(l_cell)
        self._take(r_cell)

    def __call__(self, inputs: Any, states: Any) -> Any:
        """An error: it cannot be stepped."""
        raise NotImplementedError("a BidirectionalCell reads whole sequences: call unroll")

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None) -> Any:
        """(outputs, states) of all steps."""
        self.reset()
        steps, axis = sequence(length, inputs, layout, False)
        states = self.begin_state() if begin_state is None else begin_state
        left, right = self._cells
        n = len(left.state_info)
        a, left_states = left.unroll(length, steps, states[:n], layout, merge_outputs)
        b, right_states = right.unroll(length, list(reversed(steps)), states[n:], layout, merge_outputs)
        if merge_outputs is None:
            merge_outputs = isinstance(a, Symbol) and isinstance(b, Symbol)
            if not merge_outputs:
                a, b = (sequence(length, x, layout, False)[0] for x in (a, b))
        if merge_outputs:
            return sym.Concat(a, sym.reverse(b, axis=axis), dim=2, name=f"{self._output_prefix}out"), [left_states, right_states]
        outputs = [sym.Concat(x, y, dim=1, name=f"{self._output_prefix}t{i}") for i, (x, y) in enumerate(zip(a, reversed(b)))]
        return outputs, [left_states, right_states]


class DropoutCell(BaseRNNCell):
    """Dropout on its input."""

    def __init__(self, dropout: float, prefix: str = "dropout_", params: RNNParams | None = None) -> None:
        super().__init__(prefix, params)
        if not isinstance(dropout, (int, float)):
            raise AssertionError("the probability of dropout is a number")
        self.dropout = dropout

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """None: there are no states."""
        return []

    def __call__(self, inputs: Any, states: Any) -> Any:
        """One step."""
        return (sym.Dropout(inputs, p=self.dropout) if self.dropout > 0 else inputs), states

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None) -> Any:
        """(outputs, states) of all steps."""
        self.reset()
        given, _ = sequence(length, inputs, layout, merge_outputs)
        if isinstance(given, Symbol):
            return self(given, [])
        return super().unroll(length, given, begin_state, layout, merge_outputs)


class ModifierCell(BaseRNNCell):
    """The base class of cells that change what another cell gives."""

    def __init__(self, base_cell: BaseRNNCell) -> None:
        self.base_cell = base_cell
        super().__init__()
        base_cell._modified = True

    @property
    def params(self) -> RNNParams:
        """The variables of the inner cell."""
        self._own_params = False
        return self.base_cell.params

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """Those of the inner cell."""
        return self.base_cell.state_info

    def begin_state(self, func: Any = None, **kwargs: Any) -> list[Any]:
        """Those of the inner cell."""
        self._check_free()
        self.base_cell._modified = False
        try:
            return self.base_cell.begin_state(kwargs.pop("init_sym", func), **kwargs)
        finally:
            self.base_cell._modified = True

    def unpack_weights(self, args: dict[str, Any]) -> dict[str, Any]:
        """Parameters with the weights of each gate on their own."""
        return self.base_cell.unpack_weights(args)

    def pack_weights(self, args: dict[str, Any]) -> dict[str, Any]:
        """Parameters as the cell has them."""
        return self.base_cell.pack_weights(args)


class ZoneoutCell(ModifierCell):
    """Outputs and states that keep their old values at random (Krueger et al.: arXiv 1606.01305)."""

    def __init__(self, base_cell: BaseRNNCell, zoneout_outputs: float = 0.0, zoneout_states: float = 0.0) -> None:
        if isinstance(base_cell, (FusedRNNCell, BidirectionalCell)):
            raise AssertionError(f"{type(base_cell).__name__} doesn't support zoneout. Unfuse it, or put ZoneoutCell on the cells underneath.")
        super().__init__(base_cell)
        self.zoneout_outputs, self.zoneout_states = zoneout_outputs, zoneout_states

    def reset(self) -> None:
        """Begin another unrolling."""
        super().reset()
        self.prev_output: Any = None
        self.base_cell.reset()

    def __call__(self, inputs: Any, states: Any) -> Any:
        """One step."""
        output, new = self.base_cell(inputs, states)

        def mixed(p: float, now: Any, before: Any) -> Any:
            return sym.where(sym.Dropout(sym.ones_like(now), p=p), now, before) if p else now

        before = self.prev_output if self.prev_output is not None else sym.zeros_like(output)
        output, new = mixed(self.zoneout_outputs, output, before), [mixed(self.zoneout_states, n, s) for n, s in zip(new, states)]
        self.prev_output = output
        return output, new


class ResidualCell(ModifierCell):
    """The input is added to the output."""

    def __call__(self, inputs: Any, states: Any) -> Any:
        """One step."""
        output, states = self.base_cell(inputs, states)
        return sym.elemwise_add(output, inputs, name=f"{output.name}_plus_residual"), states

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None) -> Any:
        """(outputs, states) of all steps."""
        self.reset()
        self.base_cell._modified = False
        try:
            outputs, states = self.base_cell.unroll(length, inputs, begin_state, layout, merge_outputs)
        finally:
            self.base_cell._modified = True
        merged = isinstance(outputs, Symbol) if merge_outputs is None else merge_outputs
        given, _ = sequence(length, inputs, layout, merged)
        if merged:
            return sym.elemwise_add(outputs, given, name=f"{outputs.name}_plus_residual"), states
        return [sym.elemwise_add(o, i, name=f"{o.name}_plus_residual") for o, i in zip(outputs, given)], states


class FusedRNNCell(BaseRNNCell):
    """Layers of a recurrent network as one operator, with all parameters in one vector."""

    def __init__(self, num_hidden: int, num_layers: int = 1, mode: str = "lstm", bidirectional: bool = False, dropout: float = 0.0,
                 get_next_state: bool = False, forget_bias: float = 1.0, prefix: str | None = None,
                 params: RNNParams | None = None) -> None:  # fmt: skip
        if mode not in _GATES:
            raise ValueError(f"FusedRNNCell: mode={mode!r} is none of {', '.join(_GATES)}")
        super().__init__(f"{mode}_" if prefix is None else prefix, params)
        self._num_hidden, self._num_layers, self._mode = num_hidden, num_layers, mode
        self._gate_names = _GATES[mode]
        self._bidirectional, self._dropout, self._get_next_state = bidirectional, dropout, get_next_state
        self._directions = ["l", "r"] if bidirectional else ["l"]
        self._parameter = self.params.get("parameters", init=FusedRNN(None, num_hidden, num_layers, mode, bidirectional, forget_bias))

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        shape = (len(self._directions) * self._num_layers, 0, self._num_hidden)
        return [{"shape": shape, "__layout__": "LNC"} for _ in range(2 if self._mode == "lstm" else 1)]

    def _layout(self, inputs: int) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the parts of the vector."""
        h, b = self._num_hidden, len(self._directions)
        out: list[tuple[str, tuple[int, ...]]] = []
        for kind in ("weight", "bias"):
            for layer in range(self._num_layers):
                for side in self._directions:
                    for group, width in (("i2h", b * h if layer else inputs), ("h2h", h)):
                        for gate in self._gate_names:
                            shape: tuple[int, ...] = (h, width) if kind == "weight" else (h,)
                            out.append((f"{self._prefix}{side}{layer}_{group}{gate}_{kind}", shape))
        return out

    def unpack_weights(self, args: dict[str, Any]) -> dict[str, Any]:
        """Parameters with the weights of each gate on their own."""
        args = dict(args)
        whole = args.pop(self._parameter.name)
        b, m, h = len(self._directions), len(self._gate_names), self._num_hidden
        inputs = whole.size // b // h // m - (self._num_layers - 1) * (h + b * h + 2) - h - 2
        at = 0
        for name, shape in self._layout(inputs):
            size = int(np.prod(shape))
            args[name] = whole[at : at + size].reshape(shape).copy()
            at += size
        if at != whole.size:
            raise AssertionError("the vector of parameters is not of this FusedRNNCell: its length fits no size of inputs")
        return args

    def pack_weights(self, args: dict[str, Any]) -> dict[str, Any]:
        """Parameters in one vector."""
        args = dict(args)
        first = args[f"{self._prefix}l0_i2h{self._gate_names[0]}_weight"]
        parts = [args.pop(name).reshape((-1,)) for name, _ in self._layout(first.shape[1])]
        args[self._parameter.name] = nd.concatenate(parts)
        return args

    def __call__(self, inputs: Any, states: Any) -> Any:
        """An error: it cannot be stepped."""
        raise NotImplementedError("a FusedRNNCell reads whole sequences: call unroll")

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None) -> Any:
        """(outputs, states) of all steps."""
        self.reset()
        data, axis = sequence(length, inputs, layout, True)
        if axis == 1:
            data = sym.swapaxes(data, dim1=0, dim2=1)
        states = self.begin_state() if begin_state is None else begin_state
        named = dict(zip(("state", "state_cell"), states))
        rnn = sym.RNN(data=data, parameters=self._parameter, state_size=self._num_hidden, num_layers=self._num_layers,
                      bidirectional=self._bidirectional, p=self._dropout, state_outputs=self._get_next_state, mode=self._mode,
                      name=f"{self._prefix}rnn", **named)  # fmt: skip
        outputs, after = (rnn[0], [rnn[i + 1] for i in range(len(states))]) if self._get_next_state else (rnn, [])
        if axis == 1:
            outputs = sym.swapaxes(outputs, dim1=0, dim2=1)
        return sequence(length, outputs, layout, merge_outputs, layout)[0], after

    def unfuse(self) -> SequentialRNNCell:
        """The same network of single cells; `unpack_weights` gives parameters for it."""
        stack = SequentialRNNCell()

        def cell(prefix: str) -> BaseRNNCell:
            if self._mode == "lstm":
                return LSTMCell(self._num_hidden, prefix)
            if self._mode == "gru":
                return GRUCell(self._num_hidden, prefix)
            return RNNCell(self._num_hidden, self._mode.removeprefix("rnn_"), prefix)

        for i in range(self._num_layers):
            if self._bidirectional:
                stack.add(BidirectionalCell(cell(f"{self._prefix}l{i}_"), cell(f"{self._prefix}r{i}_"),
                                            output_prefix=f"{self._prefix}bi_l{i}_"))  # fmt: skip
            else:
                stack.add(cell(f"{self._prefix}l{i}_"))
            if self._dropout > 0 and i != self._num_layers - 1:
                stack.add(DropoutCell(self._dropout, f"{self._prefix}_dropout{i}_"))
        return stack
