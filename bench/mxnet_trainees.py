"""Networks to train, alike on `diptych.mxnet` and on MXNet 1.9.1: a worker that obeys lines of JSON.

Runs under the interpreter of either: `python bench/mxnet_trainees.py mxnet`, then on its standard input lines such as
`{"do": "make", "case": "lenet", "save": "start.params"}`, `{"do": "train", "steps": 5}`, `{"do": "infer", "calls": 5}`.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SEED = 2026


class _Case:
    """A network, its batches, its loss and its optimizer."""

    optimizer = ("sgd", {"learning_rate": 0.05, "momentum": 0.9, "wd": 1e-4})
    clip = None  # the largest norm of all gradients together

    def __init__(self, mx):
        self.mx = mx
        self.net = self.network()
        self.loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def states(self):
        """What the network takes beside the data."""
        return []

    def scores(self, x, state):
        """Class scores [samples, classes] for a batch, and what the next batch starts from."""
        return self.net(x), state


class LeNet(_Case):
    """LeNet-5 on the handwritten digits that come with the package, 28 pixels wide, 60 a batch."""

    name = "lenet"
    batch = 60

    def network(self):
        """Two convolutions with max pooling, three dense layers."""
        nn = self.mx.gluon.nn
        net = nn.HybridSequential(prefix="")
        net.add(nn.Conv2D(6, 5, padding=2, activation="tanh"), nn.MaxPool2D(2, 2), nn.Conv2D(16, 5, activation="tanh"),
                nn.MaxPool2D(2, 2), nn.Dense(120, activation="tanh"), nn.Dense(84, activation="tanh"), nn.Dense(10))  # fmt: skip
        return net

    def batches(self):
        """Six batches of sixty digits."""
        with np.load(ROOT / "diptych" / "compare" / "demo" / "digits_held_out.npz") as found:
            pixels, labels = found["pixels"].astype(np.float32) / 16, found["labels"].astype(np.float32)
        images = np.zeros((len(pixels), 1, 28, 28), np.float32)
        images[:, 0, 2:26, 2:26] = pixels.repeat(3, 1).repeat(3, 2)
        return [(images[i : i + self.batch], labels[i : i + self.batch]) for i in range(0, len(images), self.batch)]


class ResNet(_Case):
    """ResNet-18 of MXNet's model zoo on synthetic images of 32 by 32, each class a pattern under noise, 16 a batch."""

    name = "resnet18"
    batch = 16
    optimizer = ("sgd", {"learning_rate": 0.0003, "momentum": 0.9, "wd": 1e-4})

    def network(self):
        """resnet18_v1 with ten classes."""
        return self.mx.gluon.model_zoo.vision.resnet18_v1(classes=10, thumbnail=True, prefix="")

    def batches(self):
        """Eight batches."""
        rng = np.random.RandomState(SEED)
        patterns = rng.standard_normal((10, 3, 32, 32))
        labels = rng.randint(0, 10, 8 * self.batch)
        images = (0.5 * patterns[labels] + rng.standard_normal((len(labels), 3, 32, 32))).astype(np.float32)
        pairs = zip(np.split(images, 8), np.split(labels.astype(np.float32), 8))
        return list(pairs)


class Language(_Case):
    """Two layers of LSTM, 200 wide, on the words of the repository's documents: 35 words of 32 texts at a time."""

    name = "lstm"
    batch, length, width, layers = 32, 35, 200, 2
    optimizer = ("sgd", {"learning_rate": 2.0})
    clip = 0.25 * 35 * 32

    def __init__(self, mx):
        words = re.findall(r"\w+|[^\w\s]|\n", self.text())
        names = {w: i for i, w in enumerate(sorted(set(words)))}
        self.words, self.vocabulary = np.array([names[w] for w in words]), len(names)
        super().__init__(mx)

    @staticmethod
    def text():
        """All that is told of the project in its own tree."""
        files = [ROOT / "LICENSE", ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
        return "\n".join(f.read_text(encoding="utf-8") for f in files)

    def network(self):
        """Embedding, LSTM, dense layer onto the vocabulary."""
        mx, width, layers, vocabulary = self.mx, self.width, self.layers, self.vocabulary

        class Model(mx.gluon.HybridBlock):
            def __init__(self):
                super().__init__(prefix="")
                with self.name_scope():
                    self.embedding = mx.gluon.nn.Embedding(vocabulary, width)
                    self.lstm = mx.gluon.rnn.LSTM(width, layers, input_size=width)
                    self.decoder = mx.gluon.nn.Dense(vocabulary, flatten=False)

            def hybrid_forward(self, F, x, h, c):
                y, (h, c) = self.lstm(self.embedding(x), [h, c])
                return self.decoder(y), h, c

        return Model()

    def states(self):
        """Zeros."""
        zeros = self.mx.nd.zeros((self.layers, self.batch, self.width))
        return [zeros, zeros.copy()]

    def scores(self, x, state):
        """Scores of the word after each, and the states to go on from."""
        y, *state = self.net(x, *state)
        return y, [s.detach() for s in state]

    def batches(self):
        """Stretches of as many steps as there are, in order."""
        steps = (len(self.words) - 1) // self.batch
        columns = self.words[: steps * self.batch].reshape(self.batch, steps).T.astype(np.float32)
        after = self.words[1 : steps * self.batch + 1].reshape(self.batch, steps).T.astype(np.float32)
        return [(columns[t : t + self.length], after[t : t + self.length]) for t in range(0, steps - self.length, self.length)]


CASES = {case.name: case for case in (LeNet, ResNet, Language)}


class Worker:
    """One network in training."""

    def make(self, case, save=None, load=None, hybrid=True, nudge=False):
        """Build a network, with new parameters (written to `save`) or with those of a file; `nudge`: one rounding away."""
        import random

        mx = self.mx = importlib.import_module(sys.argv[1])
        random.seed(SEED)
        np.random.seed(SEED)
        mx.random.seed(SEED)
        self.case = CASES[case](mx)
        batches = [(mx.nd.array(x), mx.nd.array(y)) for x, y in self.case.batches()]
        self.batches, self.count = batches, 0
        net = self.case.net
        net.initialize(mx.init.Xavier())
        self.case.scores(batches[0][0], self.case.states())[0].wait_to_read()
        if save:
            net.save_parameters(save)
        if load:
            net.load_parameters(load)
        if nudge:
            for p in net.collect_params().values():
                p.set_data(mx.nd.array(np.nextafter(p.data().asnumpy(), np.float32(np.inf))))
        if hybrid:
            net.hybridize(static_alloc=True, static_shape=True)
            self.case.loss.hybridize(static_alloc=True, static_shape=True)
        name, options = self.case.optimizer
        self.trainer = mx.gluon.Trainer(net.collect_params(), name, dict(options))
        self.state = self.case.states()
        self.trained = [p for p in net.collect_params().values() if p.grad_req != "null"]
        return {"parameters": int(sum(np.prod(p.shape) for p in self.trained)), "batches": len(batches)}

    def train(self, steps):
        """The mean loss of each step and its seconds."""
        mx, losses, seconds = self.mx, [], []
        for _ in range(steps):
            begin = time.perf_counter()
            x, y = self.batches[self.count % len(self.batches)]
            self.count += 1
            with mx.autograd.record():
                scores, self.state = self.case.scores(x, self.state)
                loss = self.case.loss(scores, y)
            loss.backward()
            size = loss.size
            if self.case.clip is not None:
                size = 1
                total = self.case.length * self.case.batch
                mx.gluon.utils.clip_global_norm([p.grad() for p in self.trained], self.case.clip / total, check_isfinite=False)
            self.trainer.step(size)
            losses.append(float(loss.mean().asscalar()))
            mx.nd.waitall()
            seconds.append(time.perf_counter() - begin)
        return {"losses": losses, "seconds": seconds}

    def infer(self, calls):
        """Seconds of forward passes alone, and a sum of their results."""
        seconds = []
        state = self.case.states()
        x = self.batches[0][0]
        for _ in range(calls):
            begin = time.perf_counter()
            scores, _ = self.case.scores(x, state)
            scores.wait_to_read()
            seconds.append(time.perf_counter() - begin)
        return {"seconds": seconds, "checksum": float(np.abs(scores.asnumpy()).sum())}

    def parameters(self, save):
        """Write the parameters as they are."""
        self.case.net.save_parameters(save)
        return {}


def main():
    """Obey one line after another; `true` answers are JSON too."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer
    worker = Worker()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(worker, order.pop("do"))(**order)
        except Exception as error:  # the other side must hear of it
            import traceback

            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
