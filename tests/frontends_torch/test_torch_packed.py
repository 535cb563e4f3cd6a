"""Packed sequences: rows of different lengths through recurrent layers, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import UnsupportedError

torch = pytest.importorskip("torch")
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

LAYERS = {
    "lstm": lambda: torch.nn.LSTM(5, 17, 2, bidirectional=True, batch_first=True),
    "lstm projected": lambda: torch.nn.LSTM(5, 17, 2, bidirectional=True, batch_first=True, proj_size=6),
    "gru": lambda: torch.nn.GRU(5, 17, 2, bidirectional=True, batch_first=True),
    "rnn": lambda: torch.nn.RNN(5, 17, batch_first=True),
    "relu rnn": lambda: torch.nn.RNN(5, 17, batch_first=True, nonlinearity="relu", bidirectional=True),
}


class Packed(torch.nn.Module):  # type: ignore[misc]
    """States of all steps, final states and lengths."""

    def __init__(self, layer: Any, is_sorted: bool = False, total: int | None = None) -> None:
        super().__init__()
        self.layer, self.is_sorted, self.total = layer, is_sorted, total

    def forward(self, x: Any, lengths: Any) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=self.is_sorted)
        y, last = self.layer(packed)
        y, lengths = pad_packed_sequence(y, batch_first=True, padding_value=-1.0, total_length=self.total)
        return y, last, lengths


def leaves(value: Any) -> list[Any]:
    return [value] if isinstance(value, torch.Tensor) else [leaf for part in value for leaf in leaves(part)]


def check(net: Any, model: Any, x: Any, lengths: Any) -> None:
    with torch.no_grad():
        want = leaves(net(x, lengths))
    got = leaves(model(x, lengths))
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_lengths_of_every_call(name: str, is_sorted: bool) -> None:
    """One compilation serves all lengths; the longest row fills the input."""
    torch.manual_seed(3)
    net = Packed(LAYERS[name](), is_sorted).eval()
    model = diptych.compile(net, (torch.randn(3, 7, 5), torch.tensor([7, 4, 1])), threads=2)
    for lengths in ([7, 7, 7], [7, 5, 2], [7, 1, 1]) if is_sorted else ([1, 7, 3], [7, 7, 2]):
        check(net, model, torch.randn(3, 7, 5), torch.tensor(lengths))


def test_a_total_length_and_rows_that_are_all_shorter() -> None:
    net = Packed(LAYERS["gru"](), total=9).eval()
    model = diptych.compile(net, (torch.randn(2, 6, 5), torch.tensor([6, 2])))
    for lengths in ([6, 2], [3, 4], [1, 1]):
        check(net, model, torch.randn(2, 6, 5), torch.tensor(lengths))


def test_what_lies_past_a_row_has_no_influence() -> None:
    net = Packed(LAYERS["lstm"]()).eval()
    x, lengths = torch.randn(3, 7, 5), torch.tensor([3, 7, 5])
    model = diptych.compile(net, (x, lengths))
    clean = leaves(model(x, lengths))
    x[0, 3:], x[2, 5:] = float("nan"), float("inf")
    for a, b in zip(leaves(model(x, lengths)), clean, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_lengths_that_are_constants() -> None:
    class Fixed(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.LSTM(5, 6, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.layer(pack_padded_sequence(x, [5, 2], batch_first=True))[1]

    net, x = Fixed().eval(), torch.randn(2, 5, 5)
    model = diptych.compile(net, (x,))
    with torch.no_grad():
        for got, want in zip(model(x), net(x), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-6)


def test_packed_data_is_for_recurrent_layers_only() -> None:
    class Mean(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, through: bool) -> None:
            super().__init__()
            self.layer, self.through = torch.nn.GRU(5, 6, batch_first=True), through

        def forward(self, x: Any, lengths: Any) -> Any:
            packed = pack_padded_sequence(x, lengths, batch_first=True)
            return self.layer(packed)[0].data.mean(0) if self.through else packed.data

    for through in (True, False):
        with pytest.raises(UnsupportedError, match=r"packed sequence.*pad_packed_sequence"):
            diptych.compile(Mean(through).eval(), (torch.randn(2, 5, 5), torch.tensor([5, 2])))


def test_torch_itself_is_as_before() -> None:
    net = Packed(LAYERS["lstm"]()).eval()
    x, lengths = torch.randn(3, 7, 5), torch.tensor([3, 7, 5])
    before = leaves(net(x, lengths))
    diptych.compile(net, (x, lengths))
    for a, b in zip(leaves(net(x, lengths)), before, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not set(vars(torch._VF)) & {"lstm", "gru", "rnn_tanh", "rnn_relu", "_pack_padded_sequence", "_pad_packed_sequence"}
