"""`diptych generate`: text or tokens from a causal language model of transformers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from diptych.cli.common import add_json, build_torch, emit, positive
from diptych.errors import InputError, UnsupportedError

__all__ = ["add", "run"]

MODELS = """a model is one of
  folder                   a checkpoint as transformers saves it: config.json and *.safetensors, with a tokenizer for --prompt
  package.module:factory   a causal language model of transformers, or a function that returns one
  file.py:factory          the same, from a file"""


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("model", metavar="MODEL", help="the language model (see below)")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--prompt", metavar="TEXT", help="what to go on from; needs the tokenizer of the checkpoint")
    given.add_argument("--ids", metavar="ID,ID,...", help="the same as token ids")
    parser.add_argument("--new", type=positive, default=50, metavar="N", help="new tokens at most (default: 50)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default) takes the likeliest token, above that they are drawn")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw from the K likeliest tokens")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw from the likeliest tokens of this probability")
    parser.add_argument("--seed", type=int, help="draw the same tokens again")
    parser.add_argument("--stop", metavar="ID,ID,...", default="", help="tokens to end after (default: the model's end-of-text token)")
    parser.add_argument("--max-length", type=positive, metavar="N", help="positions to make room for (default: the model's, up to 1024)")
    parser.add_argument("--threads", type=positive, help="threads (default: what diptych chooses)")
    add_json(parser)
    parser.epilog = MODELS


def _numbers(text: str, what: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{what} {text!r}: whole numbers with commas between them expected, as in 464,3290") from None


def _opened(name: str) -> tuple[Any, Any]:
    """The model, and its tokenizer where there is one."""
    folder = Path(name)
    if not folder.is_dir():
        return build_torch(name)[0], None
    try:
        import transformers
    except ImportError as e:
        raise UnsupportedError("checkpoints of language models are read by transformers: pip install transformers") from e
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype="float32"
        )
    except (OSError, ValueError) as e:
        raise InputError(f"{name}: transformers cannot read this checkpoint: {e}") from e
    tokens = None
    if any((folder / f).exists() for f in ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        tokens = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return model, tokens


def run(args: argparse.Namespace) -> int:
    """Generate, showing each token as it comes."""
    from diptych import Generator

    model, tokenizer = _opened(args.model)
    if args.prompt is not None:
        if tokenizer is None:
            raise InputError(f"{args.model}: there is no tokenizer for a text; give token ids with --ids")
        ids = [int(i) for i in tokenizer(args.prompt)["input_ids"]]
    else:
        ids = _numbers(args.ids, "--ids")
    end = getattr(getattr(model, "config", None), "eos_token_id", None)
    stop = _numbers(args.stop, "--stop") if args.stop else [] if end is None else [end] if isinstance(end, int) else list(end)
    generator = Generator(model, max_length=args.max_length, threads=args.threads)
    stream = generator.stream(
        ids, args.new, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, seed=args.seed, stop=stop
    )
    found: list[int] = []
    shown = ""
    quiet = args.json == "-"
    for token in stream:
        found.append(token)
        text = tokenizer.decode(found) if tokenizer is not None else " ".join(map(str, found))
        if not quiet and not text.endswith("\ufffd"):  # a character may take several tokens
            sys.stdout.write(text[len(shown) :])
            sys.stdout.flush()
            shown = text
    text = tokenizer.decode(found) if tokenizer is not None else None
    steps = len(found) - 1
    rates = {
        "prefill_tokens_per_s": len(ids) / stream.prefill_seconds,
        "decode_tokens_per_s": steps / stream.decode_seconds if stream.decode_seconds else None,
    }
    decoded = f", {rates['decode_tokens_per_s']:.1f} tokens/s after it" if rates["decode_tokens_per_s"] else ""
    summary = f"\n  prompt of {len(ids)} tokens at {rates['prefill_tokens_per_s']:.0f} tokens/s{decoded} (compiling included)"
    emit(args, {"tokens": found, "text": text, **rates}, summary)
    return 0
