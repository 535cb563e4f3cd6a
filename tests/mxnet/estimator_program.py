"""A program that an Estimator trains; it prints what MXNet and diptych.mxnet must agree on. Argument: the package."""

import importlib
import json
import sys
import warnings

import numpy as np

mx = importlib.import_module(sys.argv[1])
gluon = importlib.import_module(f"{sys.argv[1]}.gluon")
est = importlib.import_module(f"{sys.argv[1]}.gluon.contrib.estimator")
warnings.simplefilter("ignore")

rng = np.random.RandomState(7)
x, y = rng.rand(20, 5).astype("f"), rng.randint(0, 3, 20).astype("f")
loader = gluon.data.DataLoader(gluon.data.ArrayDataset(x, y), batch_size=6)
net = gluon.nn.HybridSequential(prefix="net_")
with net.name_scope():
    net.add(gluon.nn.Dense(7, activation="relu", in_units=5), gluon.nn.Dense(3, in_units=7))
net.initialize()
for p in net.collect_params().values():
    p.set_data(mx.nd.array(rng.rand(*p.shape) - 0.5))
net.hybridize()
trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.3, "momentum": 0.9})
folder = sys.argv[2]
lines = []


class Note(est.EpochEnd):
    def epoch_end(self, estimator, *args, **kwargs):
        lines.append([[m.get()[0], round(float(m.get()[1]), 5)] for m in estimator.train_metrics + estimator.val_metrics])


one = est.Estimator(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer=trainer)
one.logger.setLevel("ERROR")
keep = est.CheckpointHandler(folder, "m", monitor=one.val_metrics[1], save_best=True, mode="min", max_checkpoints=2)
stop = est.EarlyStoppingHandler(one.val_metrics[1], min_delta=0.02, patience=2, mode="min")
one.fit(loader, val_data=loader, epochs=12, event_handlers=[Note(), keep, stop])
print(json.dumps({"lines": lines, "stopped": stop.stopped_epoch, "files": sorted(__import__("os").listdir(folder))}))
