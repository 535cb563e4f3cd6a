"""`diptych generate` on a tiny GPT-2 with random weights, saved as transformers saves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torchvision_build import torchvision

torch = pytest.importorskip("torch")
torchvision()  # transformers imports it, and its build may lack operators
transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[2]
# The command in a process of its own, where transformers finds torchvision as above.
START = "import sys, torchvision_build as b; b.torchvision(); from diptych.cli import main; sys.exit(main(sys.argv[1:]))"
WORDS = ["<end>", "the", "dog", "sat", "on", "a", "mat"]


def generate(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command and hold it to its exit status; a traceback is never an answer."""
    done = subprocess.run(
        [sys.executable, "-c", START, "generate", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def model() -> object:
    torch.manual_seed(5)
    config = transformers.GPT2Config(vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0)
    net = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 2:
                p.mul_(20.0)  # logits that differ: then equal tokens mean something
    return net


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with a tokenizer of whole words."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("gpt2")
    model().save_pretrained(folder)  # type: ignore[attr-defined]
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<end>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<end>").save_pretrained(folder)
    return folder


def judged(folder: Path, ids: list[int], count: int) -> list[int]:
    """What transformers generates; it ends after the end-of-text token, as the command does."""
    net = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    given = torch.tensor([ids])
    with torch.no_grad():
        out = net.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False, pad_token_id=0)
    return [int(t) for t in out[0, len(ids) :]]


def test_text_goes_on_as_transformers_does(checkpoint: Path) -> None:
    found = json.loads(generate(str(checkpoint), "--prompt", "the dog sat", "--new", "12", "--threads", "1", "--json").stdout)
    assert found["tokens"] == judged(checkpoint, [1, 2, 3], 12)
    assert found["text"].split() == [WORDS[t] for t in found["tokens"]]
    assert found["prefill_tokens_per_s"] > 0


def test_token_ids_and_a_stop_token(checkpoint: Path) -> None:
    free = json.loads(generate(str(checkpoint), "--ids", "1,2", "--new", "8", "--stop", "99", "--json").stdout)["tokens"]
    assert len(free) == 8
    done = generate(str(checkpoint), "--ids", "1,2", "--new", "8", "--stop", str(free[1]), "--json")
    assert json.loads(done.stdout)["tokens"] == free[: free.index(free[1]) + 1]


def test_tokens_are_shown_as_they_come_and_a_seed_draws_them_again(checkpoint: Path) -> None:
    again = [generate(str(checkpoint), "--ids", "4,5,6", "--new", "6", "--temperature", "1.5", "--seed", "3", "--stop", "99").stdout for _ in range(2)]
    assert "prompt of 3 tokens at" in again[0]
    assert again[0].splitlines()[0] == again[1].splitlines()[0]


def test_a_prompt_of_text_needs_a_tokenizer(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)  # type: ignore[attr-defined]
    assert "no tokenizer for a text; give token ids with --ids" in generate(str(tmp_path), "--prompt", "the", status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ids", "1,two"), "whole numbers with commas between them"),
        (("--ids", ","), "the prompt is empty"),
        (("--ids", "1,7"), "token 7, outside the vocabulary of 7"),
        (("--ids", ",".join(["1"] * 64)), "leaves no room in max_length=64"),
        (("--ids", "1", "--top-p", "0"), "top_p"),
        (("--ids", "1", "--max-length", "65"), "more than the 64 positions"),
    ],
)
def test_bad_prompts_and_options(checkpoint: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in generate(str(checkpoint), *arguments, status=2).stderr


def test_models_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "transformers cannot read this checkpoint" in generate(str(tmp_path), "--ids", "1", status=2).stderr
    (tmp_path / "linear.py").write_text("import torch\n\ndef make():\n    return torch.nn.Linear(2, 2)\n")
    assert "no language model of transformers" in generate(f"{tmp_path / 'linear.py'}:make", "--ids", "1", status=2).stderr
