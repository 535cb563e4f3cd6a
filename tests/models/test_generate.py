"""Generation: token for token what transformers generates, and what the options promise."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from torchvision_build import torchvision

import diptych
from diptych.errors import InputError, UnsupportedError
from diptych.generate import _PIECES, _pieces
from diptych.sampling import Sampling

torch = pytest.importorskip("torch")
torchvision()  # transformers imports it, and its build may lack operators
transformers = pytest.importorskip("transformers")

Array = np.ndarray[Any, Any]
VOCABULARY = 211


def gpt2(**more: Any) -> Any:
    config = {"n_embd": 48, "n_layer": 2, "n_head": 3, "n_positions": 256, "bos_token_id": 0, "eos_token_id": 1}
    return spread(transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=VOCABULARY, **{**config, **more})))


def llama(**more: Any) -> Any:
    config = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }  # fmt: skip
    return spread(transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=VOCABULARY, **{**config, **more})))


def spread(model: Any) -> Any:
    """Weights that make the logits differ: then equal tokens mean something."""
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.copy_(torch.randn(p.shape, generator=g) * 0.5)
    return model.eval()


def prompt(length: int, batch: int = 1, seed: int = 0) -> Any:
    return torch.randint(2, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def judged(model: Any, ids: Any, count: int) -> Array:
    """What transformers itself generates."""
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
                             pad_token_id=0, eos_token_id=None)  # fmt: skip
    return np.asarray(out[:, ids.shape[1] :].numpy())


@pytest.fixture(scope="module")
def small() -> tuple[Any, diptych.Generator]:
    torch.manual_seed(0)
    model = gpt2()
    return model, diptych.Generator(model, max_length=160)


@pytest.mark.parametrize("length", [1, 17, 50])
def test_greedy_is_what_transformers_gives(small: tuple[Any, diptych.Generator], length: int) -> None:
    model, generator = small
    ids = prompt(length)
    found = generator.generate(ids[0], 100)
    np.testing.assert_array_equal(found.tokens, judged(model, ids, 100)[0])
    assert len(set(found.tokens.tolist())) > 10, "a model that repeats itself proves little"
    assert found.prompt_tokens == length and found.prefill_rate > 0 and found.decode_rate > 0


@pytest.mark.parametrize(
    "make",
    [
        llama,
        lambda: llama(num_key_value_heads=1, attention_bias=True),
        lambda: spread(transformers.MistralForCausalLM(transformers.MistralConfig(
            vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, sliding_window=None))),
        lambda: spread(transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
            vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256))),
    ],
    ids=["llama", "one key head", "mistral", "qwen2"],
)  # fmt: skip
def test_rotary_and_grouped_heads(make: Any) -> None:
    model = make()
    generator = diptych.Generator(model, max_length=128)
    ids = prompt(19)
    np.testing.assert_array_equal(generator.generate(ids[0], 70).tokens, judged(model, ids, 70)[0])


def test_several_prompts_at_once(small: tuple[Any, diptych.Generator]) -> None:
    model, generator = small
    ids = prompt(21, 3)
    found = generator.generate(ids, 30)
    np.testing.assert_array_equal(found.tokens, judged(model, ids, 30))
    stop = int(found.tokens[1, 4])
    again = generator.generate(ids, 30, stop=stop).tokens
    ends = [int(np.flatnonzero(row == stop)[0]) if stop in row else len(row) for row in found.tokens]
    for row, full, end in zip(again, found.tokens, ends, strict=True):
        np.testing.assert_array_equal(row[: end + 1], full[: end + 1][: len(row)])
        assert (row[end:] == stop).all()


def test_streams_do_not_disturb_each_other(small: tuple[Any, diptych.Generator]) -> None:
    model, generator = small
    a, b = prompt(9, seed=1), prompt(30, seed=2)
    first, second = generator.stream(a[0], 20), generator.stream(b[0].tolist(), 20)
    pairs = [(next(first), next(second)) for _ in range(20)]
    assert all(type(x) is int for pair in pairs for x in pair)
    np.testing.assert_array_equal([p[0] for p in pairs], judged(model, a, 20)[0])
    np.testing.assert_array_equal([p[1] for p in pairs], judged(model, b, 20)[0])
    with pytest.raises(StopIteration):
        next(first)
    half = generator.stream(a[0], 20)
    next(half)
    half.close()  # its cache goes to the next one, which must not see what it holds
    np.testing.assert_array_equal(generator.generate(b[0], 20).tokens, judged(model, b, 20)[0])


def test_a_dropped_stream_waits_for_nobody(small: tuple[Any, diptych.Generator]) -> None:
    """The collector may drop it while its own thread holds the generator's lock."""
    _, generator = small

    def drop() -> None:
        stream = generator.stream(prompt(5)[0], 8)
        next(stream)
        with generator._lock:
            stream.close()

    worker = threading.Thread(target=drop, daemon=True)
    worker.start()
    worker.join(120)
    assert not worker.is_alive()


def test_up_to_the_last_position(small: tuple[Any, diptych.Generator]) -> None:
    model, generator = small
    ids = prompt(150)
    found = generator.generate(ids[0], 50).tokens
    assert len(found) == 10, "max_length is 160"
    np.testing.assert_array_equal(found, judged(model, ids, 10)[0])
    assert len(generator.generate(prompt(159)[0], 50).tokens) == 1


def test_stop_tokens(small: tuple[Any, diptych.Generator]) -> None:
    _, generator = small
    full = generator.generate(prompt(12)[0], 40).tokens
    stop = int(full[10])
    end = int(np.flatnonzero(full == stop)[0])
    np.testing.assert_array_equal(generator.generate(prompt(12)[0], 40, stop=stop).tokens, full[: end + 1])
    np.testing.assert_array_equal(generator.generate(prompt(12)[0], 40, stop=[stop, 10**6]).tokens, full[: end + 1])


def test_drawn_tokens(small: tuple[Any, diptych.Generator]) -> None:
    model, generator = small
    ids = prompt(12)
    a = generator.generate(ids[0], 40, temperature=1.0, seed=4).tokens
    np.testing.assert_array_equal(a, generator.generate(ids[0], 40, temperature=1.0, seed=4).tokens)
    assert not np.array_equal(a, generator.generate(ids[0], 40, temperature=1.0, seed=5).tokens)
    np.testing.assert_array_equal(generator.generate(ids[0], 40, temperature=0.7, top_k=1).tokens, judged(model, ids, 40)[0])
    np.testing.assert_array_equal(generator.generate(ids[0], 40, temperature=1e-4, seed=0).tokens, judged(model, ids, 40)[0])


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.5, 7, 1.0), (1.3, 0, 0.8), (0.9, 20, 0.6), (2.0, 999, 0.99)])
def test_probabilities_are_those_of_transformers(temperature: float, top_k: int, top_p: float, rng: np.random.Generator) -> None:
    from transformers.generation import logits_process as lp

    logits = rng.standard_normal(50).astype(np.float32) * 3
    x = torch.tensor(logits)[None].double()
    x = lp.TemperatureLogitsWarper(temperature)(None, x)
    if top_k:
        x = lp.TopKLogitsWarper(top_k)(None, x)
    if top_p < 1:
        x = lp.TopPLogitsWarper(top_p)(None, x)
    want = torch.softmax(x, -1)[0].numpy()
    tokens, p = Sampling(temperature, top_k, top_p).probabilities(logits)
    got = np.zeros(50)
    got[tokens] = p
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([[0.1, 0.6, 0.3]], np.float32))
    rng = np.random.default_rng(0)
    drawn = np.array([Sampling(1.0).choose(logits, rng)[0] for _ in range(4000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 4000, [0.1, 0.6, 0.3], atol=0.03)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "empty"), (torch.zeros(0, dtype=torch.int64), "empty"), ([1.5, 2.0], "integers"), ([[[1]]], r"shape \(1, 1, 1\)"),
        ([1, VOCABULARY], f"token {VOCABULARY}, outside"), ([-1], "token -1, outside"), (list(range(2, 162)), "160 tokens and leaves no room"),
    ],
)  # fmt: skip
def test_bad_prompts(small: tuple[Any, diptych.Generator], given: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        small[1].generate(given)


@pytest.mark.parametrize(
    ("more", "why"),
    [({"temperature": -1.0}, "temperature"), ({"top_p": 0.0}, "top_p"), ({"top_k": -2}, "top_k"), ({"max_new_tokens": 0}, "at least 1"),
     ({"temperature": float("nan")}, "temperature")],
)  # fmt: skip
def test_bad_options(small: tuple[Any, diptych.Generator], more: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        small[1].generate([3, 4], **more)


def test_models_that_do_not_generate() -> None:
    with pytest.raises(InputError, match="max_length=300 is more than the 256"):
        diptych.Generator(gpt2(), max_length=300)
    with pytest.raises(InputError, match="no room"):
        diptych.Generator(gpt2(), max_length=1)
    with pytest.raises(UnsupportedError, match="float32"):
        diptych.Generator(gpt2().half())
    with pytest.raises(UnsupportedError, match="no language model"):
        diptych.Generator(torch.nn.Linear(2, 2))
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
    with pytest.raises(UnsupportedError, match=r"not causal|does not take"):
        diptych.Generator(transformers.BertForMaskedLM(transformers.BertConfig(**small)))
    with pytest.raises(UnsupportedError, match="the last 32 tokens only; give max_length=32"):
        diptych.Generator(transformers.MistralForCausalLM(transformers.MistralConfig(
            **small, num_key_value_heads=1, sliding_window=32)), max_length=64)  # fmt: skip
    t5 = transformers.T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8, vocab_size=50)
    with pytest.raises(UnsupportedError, match="encoder"):
        diptych.Generator(transformers.T5ForConditionalGeneration(t5))


def test_the_model_is_left_as_it_was(small: tuple[Any, diptych.Generator]) -> None:
    model, _ = small
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        assert model(prompt(5)).logits.shape == (1, 5, VOCABULARY)


def test_pieces_cover_any_prompt() -> None:
    for length in range(1, 700):
        pieces = _pieces(length)
        assert sum(used for _, used in pieces) == length and all(used <= size for size, used in pieces)
        assert all(used == size for size, used in pieces[:-1]) and sum(s for s, _ in pieces) - length < _PIECES[-1]


def test_prepared_generators_compile_nothing_more() -> None:
    generator = diptych.Generator(gpt2(n_layer=1), max_length=100).prepare(40, 30)
    before = set(generator._programs)
    generator.generate(prompt(40)[0], 30)
    assert set(generator._programs) == before
