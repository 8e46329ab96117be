"""Data for the examples: some that are always there, and loaders for files in a local folder.

Nothing is downloaded. Files are read as their authors publish them, after a check of their MD5 sums and of
every size that their format states:

- MNIST and Fashion-MNIST: four gzipped IDX files in one folder.
- CIFAR-10: `cifar-10-binary.tar.gz`, the binary version, read without unpacking it to disk. (The Python
  version is a pickle, and a pickle may run any code.)
- Planetoid graphs (Cora, CiteSeer, PubMed): `ind.NAME.*`. These are pickles and there is no other version, so
  they are read by an unpickler that knows the few types they need and refuses everything else. The authors
  publish no checksums; the known sizes of each graph are checked instead.
"""

import gzip
import hashlib
import io
import pathlib
import pickle
import tarfile
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

MNIST = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
FASHION_MNIST = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
CIFAR10 = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}
# name: (nodes, features, classes, labelled for training, test nodes)
PLANETOID = {
    "cora": (2708, 1433, 7, 140, 1000),
    "citeseer": (3327, 3703, 6, 120, 1000),
    "pubmed": (19717, 500, 3, 60, 1000),
}


class Images(NamedTuple):
    """Images [N, height, width, channels], float32 of zero mean and unit variance, and labels i32[N]."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class Graph(NamedTuple):
    """A graph with features and one label a node."""

    features: np.ndarray  # f32[nodes, F]
    labels: np.ndarray  # i32[nodes]
    edges: np.ndarray  # i32[E, 2], each undirected edge once, no loops
    train: np.ndarray  # indices of nodes
    validation: np.ndarray
    test: np.ndarray


def digits(seed: int = 0) -> Images:
    """Scikit-learn's handwritten digits, 8 x 8: 1000 to train, 797 to test, split by the seed."""
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[:1000], order[1000:]
    x = x.reshape(-1, 8, 8, 1)
    return _normalised(x[train], y[train], x[test], y[test])


def python_source(characters: int) -> np.ndarray:
    """The source of Python's standard library as ASCII codes, u8[characters]: text that is always there."""
    folder = pathlib.Path(pathlib.__file__).resolve().parent
    while not (folder / "argparse.py").exists():  # pathlib is a package since Python 3.13
        folder = folder.parent
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    codes = np.frombuffer(text, np.uint8)
    codes = codes[codes < 128]
    if len(codes) < characters:
        raise ValueError(f"characters must be at most {len(codes)}, got {characters!r}.")
    return codes[:characters]


def mnist(folder: str | pathlib.Path, md5: Mapping[str, str] = MNIST) -> Images:
    """MNIST, or with `md5=FASHION_MNIST` Fashion-MNIST, from the four gzipped IDX files in a folder."""
    contents = [gzip.decompress(_checked(pathlib.Path(folder) / name, md5)) for name in MNIST]
    x, y, x_test, y_test = (read_idx(content) for content in contents)
    for images, labels in ((x, y), (x_test, y_test)):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(f"folder must hold an image a label, got {images.shape} and {labels.shape}.")
    return _normalised(x[..., None], y, x_test[..., None], y_test)


def read_idx(content: bytes) -> np.ndarray:
    """An IDX file of unsigned bytes: 0, 0, 8, rank, then the sizes as big-endian i32, then the data."""
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(
            f"content must be an IDX file of unsigned bytes, got one that begins {content[:4]!r}."
        )
    start = 4 + 4 * content[3]
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">i4"))
    if len(content) - start != np.prod(shape):
        raise ValueError(f"content must hold {shape} bytes after its header, got {len(content) - start}.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def cifar10(folder: str | pathlib.Path, md5: Mapping[str, str] = CIFAR10) -> Images:
    """CIFAR-10 from `cifar-10-binary.tar.gz`: records of a label and 3 x 32 x 32 bytes."""
    (name,) = CIFAR10
    batches = {}
    with tarfile.open(fileobj=io.BytesIO(_checked(pathlib.Path(folder) / name, md5))) as archive:
        for member in archive:
            if member.name.endswith(".bin"):
                batches[pathlib.PurePosixPath(member.name).name] = archive.extractfile(member).read()
    wanted = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    if sorted(batches) != sorted(wanted):
        raise ValueError(f"{name} must hold {wanted}, got {sorted(batches)}.")
    x, y = _cifar_records(b"".join(batches[batch] for batch in wanted[:5]))
    return _normalised(x, y, *_cifar_records(batches["test_batch.bin"]))


def _cifar_records(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    size = 1 + 3 * 32 * 32
    if len(content) % size:
        raise ValueError(f"CIFAR-10 batches must hold records of {size} bytes, got {len(content)} bytes.")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    if records[:, 0].max(initial=0) > 9:
        raise ValueError(f"CIFAR-10 labels must be at most 9, got {records[:, 0].max()}.")
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def planetoid(folder: str | pathlib.Path, name: str, sizes: tuple[int, ...] | None = None) -> Graph:
    """A Planetoid graph: the standard split, features with rows that sum to one.

    Args:
      folder: where `ind.NAME.x`, `.tx`, `.allx`, `.y`, `.ty`, `.ally`, `.graph` and `.test.index` are.
      name: 'cora', 'citeseer' or 'pubmed'.
      sizes: (nodes, features, classes, training nodes, test nodes); default: those of the name.
    """
    parts = {}
    for part in ("allx", "ally", "tx", "ty", "y", "graph"):
        content = (pathlib.Path(folder) / f"ind.{name}.{part}").read_bytes()
        parts[part] = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    allx, tx = _dense(parts["allx"]), _dense(parts["tx"])
    index = np.loadtxt(pathlib.Path(folder) / f"ind.{name}.test.index", dtype=np.int64, ndmin=1)

    nodes = int(index.max()) + 1  # CiteSeer has test nodes without features: they stay zero
    features = np.zeros((nodes, allx.shape[1]), np.float32)
    one_hot = np.zeros((nodes, parts["ally"].shape[1]))
    features[: len(allx)], features[index] = allx, tx
    one_hot[: len(allx)], one_hot[index] = parts["ally"], parts["ty"]
    training = len(parts["y"])
    found = (nodes, features.shape[1], one_hot.shape[1], training, len(index))
    if found != (wanted := PLANETOID[name] if sizes is None else sizes):
        raise ValueError(f"{name} must have {wanted} (nodes, features, classes, train, test), got {found}.")
    pairs = {(min(a, b), max(a, b)) for a, others in parts["graph"].items() for b in others if a != b}
    if max(max(pair) for pair in pairs) >= nodes:
        raise ValueError(f"{name}'s graph must have nodes below {nodes}, got {max(map(max, pairs))}.")
    return Graph(
        features / np.maximum(features.sum(1, keepdims=True), 1e-12),
        one_hot.argmax(1).astype(np.int32),
        np.array(sorted(pairs), np.int32),
        np.arange(training),
        np.arange(training, min(training + 500, len(allx))),
        np.sort(index),
    )


class _Csr:
    """Stands for scipy's csr_matrix, whose pickle sets its attributes."""


# What an unpickler has to know, by the names that old and new versions give it.
_KNOWN = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0],
    ("scipy.sparse.csr", "csr_matrix"): _Csr,
    ("scipy.sparse._csr", "csr_matrix"): _Csr,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "list"): list,
    ("builtins", "object"): object,
    ("copyreg", "_reconstructor"): lambda cls, base, state: cls(),
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
}


class _Unpickler(pickle.Unpickler):
    """Knows arrays, csr matrices and dictionaries of lists, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)  # Python 2's names
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"Planetoid files must hold arrays and lists, got {module}.{name}.")
        return _KNOWN[module, name]


def _dense(matrix: Any) -> np.ndarray:
    """A csr matrix (or an array) as an array."""
    if isinstance(matrix, np.ndarray):
        return matrix
    shape = vars(matrix).get("_shape", vars(matrix).get("shape"))
    dense = np.zeros(shape, np.float32)
    rows = np.repeat(np.arange(shape[0]), np.diff(matrix.indptr))
    dense[rows, matrix.indices] = matrix.data
    return dense


def _checked(path: pathlib.Path, md5: Mapping[str, str]) -> bytes:
    """The content of a file, if its checksum is right."""
    content = path.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5[path.name]:
        raise ValueError(f"{path.name} must have the MD5 sum {md5[path.name]}, got {found}.")
    return content


def _normalised(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Images:
    """Zero mean and unit variance over the training images."""
    x, x_test = x.astype(np.float32), x_test.astype(np.float32)
    mean, deviation = x.mean(), x.std()
    return Images(
        (x - mean) / deviation, y.astype(np.int32), (x_test - mean) / deviation, y_test.astype(np.int32)
    )
