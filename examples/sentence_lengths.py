"""One compiled encoder for sentences of any length: the same embeddings as PyTorch's, and few programs."""

import torch

import diptych


class Embedding(torch.nn.Module):
    """A small transformer encoder; the embedding of a sentence is the mean of its tokens' states."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = torch.nn.Embedding(1000, 64), torch.nn.Embedding(128, 64)
        self.layer = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dropout=0.0)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """One row for each sentence."""
        states = self.layer(self.tokens(ids) + self.places(torch.arange(ids.shape[1])))
        return torch.nn.functional.normalize(states.mean(1), dim=1)


torch.manual_seed(0)
net = Embedding().eval()
model = diptych.compile(net, (torch.randint(0, 1000, (1, 20)),), dynamic="length")
model.prepare([8, 16, 24, 32])  # otherwise each program is made when it is first needed

equal = True
for length in range(1, 33):
    ids = torch.randint(0, 1000, (1, length))
    with torch.no_grad():
        equal &= torch.allclose(model(ids), net(ids), rtol=1e-4, atol=1e-5)
print("equal for every length, with 4 programs:", equal)
