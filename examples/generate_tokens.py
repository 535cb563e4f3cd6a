"""Tokens from a language model of transformers, as they come; its weights are random, so no text is to be expected."""

import torch
import transformers

import diptych

torch.manual_seed(0)
config = transformers.GPT2Config(
    vocab_size=500, n_embd=96, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=None
)
net = transformers.GPT2LMHeadModel(config).eval()
with torch.no_grad():
    for parameter in net.parameters():  # larger weights: tokens that differ
        parameter.mul_(10 if parameter.dim() == 2 else 1)

generator = diptych.Generator(net)
prompt = [17, 4, 256, 99, 3]
print("greedy: ", end="")
for token in generator.stream(prompt, 64):
    print(token, end=" ", flush=True)

found = generator.generate(prompt, 64)
ids = torch.tensor([prompt])
expected = net.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False, pad_token_id=0)
print("\nthe same 64 tokens as transformers:", found.tokens.tolist() == expected[0, len(prompt) :].tolist())
print(f"{found.prefill_rate:.0f} tokens/s of the prompt, {found.decode_rate:.0f} after it")

drawn = generator.generate(prompt, 10, temperature=0.8, top_k=40, top_p=0.95, seed=1)
print("drawn:", drawn.tokens.tolist())
