"""Small data sets in the official file formats, written where a test wants them."""

import gzip
import io
import pickle
import struct

import numpy as np

from mocosfl_mpi.data.check import CIFAR, IDX_NAMES


class Official(pickle._Pickler):
    """Writes arrays as the official files hold them, which were pickled by Python 2 and numpy 1."""

    def save_global(self, obj, name=None):
        module = {"_reconstruct": "numpy.core.multiarray", "ndarray": "numpy", "dtype": "numpy"}.get(
            getattr(obj, "__name__", "")
        )
        if module is None:
            return super().save_global(obj, name)
        self.write(b"c" + module.encode() + b"\n" + obj.__name__.encode() + b"\n")
        return self.memoize(obj)

    dispatch = pickle._Pickler.dispatch.copy()
    dispatch[type(pickle.dumps)] = save_global
    dispatch[type] = save_global


def batch(images=12, classes=10, key="labels", protocol=2, seed=0):
    """Bytes of one CIFAR batch with random pixels and its arrays."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (images, 3072), dtype=np.uint8)
    labels = random.integers(0, classes, images).tolist()
    buffer = io.BytesIO()
    Official(buffer, protocol).dump({"data": pixels, key: labels, "batch_label": "made up"})
    return buffer.getvalue(), pixels.reshape(-1, 3, 32, 32), np.array(labels)


def write_cifar(folder, source="cifar10", images=12):
    """All files of a small CIFAR release below ``folder``."""
    release = CIFAR[source]
    place = folder / release.folder
    place.mkdir(parents=True)
    for seed, file in enumerate((*release.train, *release.test)):
        content, _, _ = batch(images, release.classes, release.label_key, seed=seed)
        (place / file.name).write_bytes(content)
    names = {release.names_key: [f"class {k}" for k in range(release.classes)]}
    (place / release.meta.name).write_bytes(pickle.dumps(names, 2))
    return place


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, images=7, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    for name in IDX_NAMES:
        shape = (images, 28, 28) if "images" in name else (images,)
        content = idx_bytes(random.integers(0, 10, shape, dtype=np.uint8))
        path = folder / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
