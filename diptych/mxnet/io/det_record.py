"""ImageDetRecordIter: batches of images with their objects, from record files."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.base import MXNetError
from diptych.mxnet.image.codec import decode, resized
from diptych.mxnet.image.image import interpolation
from diptych.mxnet.io.base import DataDesc
from diptych.mxnet.io.image_record import Normal, refuse
from diptych.mxnet.io.record_stream import RecordStream
from diptych.mxnet.recordio import unpack

if TYPE_CHECKING:
    from diptych.ir import Array

__all__ = ["ImageDetRecordIter"]

_STREAM = ("shuffle", "seed", "round_batch", "num_parts", "part_index", "path_imglist", "shuffle_chunk_size", "shuffle_chunk_seed",
           "preprocess_threads", "prefetch_buffer")  # fmt: skip
# Limits of the sampler of parts: (lower, upper) of what, by default from nothing to all.
_LIMITS = {"scale": ("crop_scales", 0.0, 1.0), "ratio": ("crop_aspect_ratios", 1.0, 1.0), "overlap": ("crop_overlaps", 0.0, 1.0),
           "sample": ("crop_sample_coverages", 0.0, 1.0), "object": ("crop_object_coverages", 0.0, 1.0)}  # fmt: skip


class _Sampler:
    """Limits of a part of the image: its scale and ratio, and how it and the objects lie over each other."""

    def __init__(self, limits: dict[str, tuple[float, float]], trials: int) -> None:
        self.limits, self.trials = limits, trials

    def accepts(self, part: tuple[float, float, float, float], boxes: Array) -> bool:
        """Whether an object fits all limits that are not the widest."""
        asked = {k: v for k, v in self.limits.items() if k in ("overlap", "sample", "object") and v != (0.0, 1.0)}
        if not asked:
            return True
        met, areas = _met(part, boxes), _area(boxes)
        own = (part[2] - part[0]) * (part[3] - part[1])
        shares = {"overlap": met / np.maximum(own + areas - met, 1e-12), "sample": met / max(own, 1e-12), "object": met / np.maximum(areas, 1e-12)}
        fits = np.ones(len(boxes), bool)
        for name, (low, high) in asked.items():
            fits &= (shares[name] >= low) & (shares[name] <= high)
        return bool(fits.any())


def _area(boxes: Array) -> Array:
    found: Array = np.maximum(0, boxes[:, 2] - boxes[:, 0]) * np.maximum(0, boxes[:, 3] - boxes[:, 1])
    return found


def _met(part: tuple[float, float, float, float], boxes: Array) -> Array:
    return _area(np.concatenate([np.maximum(boxes[:, :2], part[:2]), np.minimum(boxes[:, 2:4], part[2:])], 1))


class ImageDetRecordIter(RecordStream):
    """Batches of images of one size, and labels (batch, label_pad_width + 4) in libmxnet's layout.

    A label is: channels, height, width, how many numbers follow, then those of the record (width of the header, width of an
    object, rest of the header, objects), then label_pad_value. label_pad_width is that of the longest if not given.

    Args:
        path_imgrec, data_shape, batch_size: as in ImageRecordIter. resize: length of the shorter side first. inter_method.
        rand_mirror_prob, rand_pad_prob, max_pad_scale, fill_value: mirrored; on a larger area of one colour.
        rand_crop_prob, num_crop_sampler, min_crop_... and max_crop_...(scales, aspect_ratios, overlaps, sample_coverages,
            object_coverages; one number for each sampler), max_crop_trials, crop_emit_mode, emit_overlap_thresh: parts of the
            image. Objects whose centre lies outside ("center"), or of which less than the threshold is inside ("overlap"),
            are left out.
        mean_r/g/b, std_r/g/b, scale: normalisation. shuffle and the others: see `record_stream.RecordStream`.
    Random colours, resize_mode other than "force" and mean_img are errors.
    """

    def __init__(self, path_imgrec: str, data_shape: Any, batch_size: int, label_width: int = -1, label_pad_width: int = 0,
                 label_pad_value: float = -1.0, resize: int = -1, inter_method: int = 1, rand_mirror_prob: float = 0, rand_pad_prob: float = 0,
                 max_pad_scale: float = 1, fill_value: int = 127, rand_crop_prob: float = 0, num_crop_sampler: int = 1,
                 crop_emit_mode: str = "center", emit_overlap_thresh: float = 0.3, max_crop_trials: Any = (25,), resize_mode: str = "force",
                 data_name: str = "data", label_name: str = "softmax_label", dtype: Any = None, **kwargs: Any) -> None:  # fmt: skip
        self._shape = tuple(int(d) for d in data_shape)
        if len(self._shape) != 3 or self._shape[0] not in (1, 3):
            raise MXNetError(f"ImageDetRecordIter: data_shape {self._shape} must be (1 or 3 channels, height, width)")
        if resize_mode != "force":
            raise MXNetError(f"ImageDetRecordIter: resize_mode={resize_mode!r} is not there; use 'force'")
        if crop_emit_mode not in ("center", "overlap"):
            raise MXNetError(f"ImageDetRecordIter: crop_emit_mode={crop_emit_mode!r} must be 'center' or 'overlap'")
        kind = np.dtype(dtype or np.float32)
        self._normal = Normal(self._shape[0], kind, kwargs)
        self._samplers = _samplers(kwargs, num_crop_sampler, max_crop_trials)
        stream = {k: kwargs.pop(k) for k in _STREAM if k in kwargs}
        refuse("ImageDetRecordIter", kwargs)
        self._resize, self._interp, self._fill, self._width = int(resize), interpolation(int(inter_method)), fill_value, int(label_width)
        self._mirror, self._pad, self._most, self._crop = rand_mirror_prob, rand_pad_prob, max_pad_scale, rand_crop_prob
        self._by_centre, self._threshold, self._value = crop_emit_mode == "center", emit_overlap_thresh, label_pad_value
        super().__init__(path_imgrec, batch_size, **stream)
        longest = self._longest()
        self._label_pad = int(label_pad_width) or longest
        if longest > self._label_pad:
            raise MXNetError(f"ImageDetRecordIter: label_pad_width={label_pad_width}, but a record has {longest} numbers")
        self.provide_data = [DataDesc(data_name, (self.batch_size, *self._shape), kind.type)]
        self.provide_label = [DataDesc(label_name, (self.batch_size, self._label_pad + 4))]
        self.reset()

    def _longest(self) -> int:
        """The most numbers of a label; the images are not decoded for it."""
        if self._listed is not None:
            return max(map(len, self._listed.values()))
        return max(np.size(unpack(self._reader.read_at(at))[0].label) for at in self._offsets)

    def _sample(self, header: Any, content: bytes, rng: np.random.Generator) -> tuple[Array, Array]:
        raw = np.ravel(np.asarray(header.label, np.float32)).copy()
        if self._width > 0 and len(raw) != self._width:
            raise MXNetError(f"record {header.id} has {len(raw)} labels, label_width={self._width}")
        head, width = (int(raw[0]), int(raw[1])) if len(raw) >= 2 else (0, 0)
        if head < 2 or width < 5 or (len(raw) - head) % width:
            raise MXNetError(f"the label of record {header.id} is not one of detection: width of the header (2 or more), width of an object "
                             f"(5 or more), rest of the header, objects; it is {raw[:8].tolist()}...")  # fmt: skip
        objects = raw[head:].reshape(-1, width)
        x: Array = decode(content, 0 if self._shape[0] == 1 else 1)
        _, rows, columns = self._shape
        if self._resize > 0:
            height, old = x.shape[:2]
            longer = self._resize * max(height, old) // min(height, old)
            x = resized(x, longer if height > old else self._resize, self._resize if height > old else longer, self._interp)
        if rng.random() < self._mirror:
            x = x[:, ::-1]
            objects[:, [1, 3]] = 1 - objects[:, [3, 1]]
        if rng.random() < self._crop:
            x, objects = self._part(x, objects, rng)
        if self._most > 1 and rng.random() < self._pad:
            x, objects = self._padded(x, objects, rng)
        if x.shape[:2] != (rows, columns):
            x = resized(np.ascontiguousarray(x), rows, columns, self._interp)
        kept = np.concatenate([raw[:head], objects.ravel()])
        label = np.full(self._label_pad + 4, self._value, np.float32)
        label[:4] = *self._shape, len(kept)
        label[4 : 4 + len(kept)] = kept
        return self._normal(x), label

    def _part(self, x: Array, objects: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """A part that one of the samplers accepts, and the objects in it; all of the image when none is found."""
        height, width = x.shape[:2]
        found = []
        for sampler in self._samplers:
            for _ in range(sampler.trials):
                scale, ratio = rng.uniform(*sampler.limits["scale"]), rng.uniform(*sampler.limits["ratio"])
                w, h = min(1.0, scale * sqrt(ratio)), min(1.0, scale / sqrt(ratio))
                if round(w * width) < 1 or round(h * height) < 1:
                    continue
                left, top = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
                part = left, top, left + w, top + h
                kept = self._inside(part, objects)
                if len(kept) and sampler.accepts(part, objects[:, 1:5]):
                    found.append((part, kept))
                    break
        if not found:
            return x, objects
        (left, top, right, bottom), kept = found[int(rng.integers(len(found)))]
        kept = kept.copy()
        kept[:, [1, 3]] = np.clip((kept[:, [1, 3]] - left) / (right - left), 0, 1)
        kept[:, [2, 4]] = np.clip((kept[:, [2, 4]] - top) / (bottom - top), 0, 1)
        x0, y0 = int(left * width), int(top * height)
        return x[y0 : max(y0 + 1, round(bottom * height)), x0 : max(x0 + 1, round(right * width))], kept

    def _inside(self, part: tuple[float, float, float, float], objects: Array) -> Array:
        boxes = objects[:, 1:5]
        if self._by_centre:
            cx, cy = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
            inside = (cx > part[0]) & (cx < part[2]) & (cy > part[1]) & (cy < part[3])
        else:
            inside = _met(part, boxes) / np.maximum(_area(boxes), 1e-12) > self._threshold
        found: Array = objects[inside]
        return found

    def _padded(self, x: Array, objects: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """The image somewhere on a larger area."""
        height, width = x.shape[:2]
        scale = rng.uniform(1, self._most)
        h, w = int(height * scale), int(width * scale)
        top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
        made = np.full((h, w, x.shape[2]), self._fill, x.dtype)
        made[top : top + height, left : left + width] = x
        objects = objects.copy()
        objects[:, [1, 3]] = (objects[:, [1, 3]] * width + left) / w
        objects[:, [2, 4]] = (objects[:, [2, 4]] * height + top) / h
        return made, objects

    def _labels(self, labels: list[Array]) -> Array:
        return np.stack(labels)


def _samplers(options: dict[str, Any], count: int, trials: Any) -> list[_Sampler]:
    """The samplers of parts from lists of limits; a list of one number holds for all."""

    def each(name: str, usual: float) -> list[float]:
        value = options.pop(name, usual)
        values = [float(v) for v in value] if isinstance(value, (tuple, list)) else [float(value)]
        if len(values) not in (1, count):
            raise MXNetError(f"ImageDetRecordIter: {name} has {len(values)} numbers for num_crop_sampler={count}")
        return values * count if len(values) == 1 else values

    limits = {k: list(zip(each(f"min_{name}", low), each(f"max_{name}", high))) for k, (name, low, high) in _LIMITS.items()}
    tries = list(trials) if isinstance(trials, (tuple, list)) else [trials]
    tries = tries * count if len(tries) == 1 else tries
    if len(tries) != count:
        raise MXNetError(f"ImageDetRecordIter: max_crop_trials has {len(tries)} numbers for num_crop_sampler={count}")
    return [_Sampler({k: limits[k][i] for k in limits}, int(tries[i])) for i in range(count)]
