"""Data for the examples: some that are always there, and loaders for files in a local folder.

Nothing is downloaded and nothing is written. Every loader takes the folder that holds the set, or one above
it in which the set has its usual name, and reads the files as their authors publish them:

- `mnist`, `fashion_mnist`: four gzipped IDX files (`mnist/`, `fashion-mnist/`). The MD5 sums are those of the
  content, so that files that somebody compressed anew are good too, as Debian's package
  dataset-fashion-mnist in /usr/share/datasets.
- `cifar10`: the binary version, unpacked (`cifar-10-batches-bin/`) or not (`cifar-10-binary.tar.gz`). No sums
  are published for its content: sizes, labels and the number of images of each class are checked. (The Python
  version is a pickle, and a pickle may run any code.)
- `planetoid`: the graphs Cora, CiteSeer and PubMed, `ind.NAME.*` (`planetoid/`). These are pickles and there
  is no other version, so they are read by an unpickler that knows the few types they need and refuses
  everything else. No sums are published; the known sizes of each graph are checked, and every index.
- `tiny_shakespeare`: one text of a million characters (`tinyshakespeare.txt`).

Use them as `import datasets` beside the examples, or as `from examples import datasets` in the root. A file
that is not there is a FileNotFoundError that says where to get the set; one that is damaged, or another than
it should be, is a ValueError with its path.
"""

import contextlib
import gzip
import hashlib
import io
import pathlib
import pickle
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

MNIST = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}
FASHION_MNIST = {
    "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
}
CIFAR10 = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
# name: (nodes, features, classes, labelled for training, test nodes)
PLANETOID = {
    "cora": (2708, 1433, 7, 140, 1000),
    "citeseer": (3327, 3703, 6, 120, 1000),
    "pubmed": (19717, 500, 3, 60, 1000),
}
SHAKESPEARE = "6fb458f1232090904fb40fe944165e91"
CLASSES = 10  # of all image sets
# Where to get a set, for people who do not have it.
SOURCES = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist, or apt install dataset-fashion-mnist",
    "cifar-10-batches-bin": "https://www.cs.toronto.edu/~kriz/cifar.html, 'CIFAR-10 binary version'",
    "planetoid": "https://github.com/kimiyoung/planetoid, its folder 'data'",
    "tinyshakespeare.txt": "https://github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt",
}


class Images(NamedTuple):
    """Images [N, height, width, channels], float32 of zero mean and unit variance, and labels i32[N]."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class Graph(NamedTuple):
    """A graph with features and one label per node."""

    features: np.ndarray  # f32[nodes, F]
    labels: np.ndarray  # i32[nodes]
    edges: np.ndarray  # i32[E, 2], each undirected edge once, no loops
    train: np.ndarray  # indices of nodes
    validation: np.ndarray
    test: np.ndarray

    def adjacency(self) -> np.ndarray:
        """Where there is an edge, f32[nodes, nodes]: dense."""
        dense = np.zeros((len(self.labels), len(self.labels)), np.float32)
        dense[self.edges[:, 0], self.edges[:, 1]] = dense[self.edges[:, 1], self.edges[:, 0]] = 1
        return dense


def normalised_adjacency(adjacency: np.ndarray) -> np.ndarray:
    """D^-1/2 (A + I) D^-1/2, what a graph convolution sums with (Kipf and Welling 2017)."""
    looped = adjacency + np.eye(len(adjacency), dtype=np.float32)
    degree = looped.sum(1)
    return looped / np.sqrt(degree[:, None] * degree[None, :])


def digits(seed: int = 0) -> Images:
    """Scikit-learn's handwritten digits, 8 x 8: 1000 to train, 797 to test, split by the seed."""
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[:1000], order[1000:]
    x = x.reshape(-1, 8, 8, 1)
    return _normalised("scikit-learn", x[train], y[train], x[test], y[test])


def karate_club() -> Graph:
    """Zachary's: 34 members, two clubs; the instructor (node 0) and the president (node 33) are labelled."""
    import networkx

    graph = networkx.karate_club_graph()
    labels = np.array([graph.nodes[node]["club"] == "Officer" for node in graph], np.int32)
    return Graph(
        np.eye(len(labels), dtype=np.float32),
        labels,
        np.array(graph.edges, np.int32),
        train=np.array([0, 33]),
        validation=np.array([], np.int64),
        test=np.arange(1, 33),
    )


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


# --- MNIST and Fashion-MNIST


def mnist(folder: str | pathlib.Path, md5: Mapping[str, str] = MNIST, name: str = "mnist") -> Images:
    """MNIST, 60000 images of 28 x 28 to train and 10000 to test; `md5` are the sums of the contents."""
    folder = _place(folder, name)
    x, y, x_test, y_test = (_idx_file(folder / file, md5[file], name) for file in MNIST)
    for images, labels in ((x, y), (x_test, y_test)):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{folder} must hold one label per image, got {images.shape} and {labels.shape}."
            )
        _check_labels(folder, labels)
    return _normalised(folder, x[..., None], y, x_test[..., None], y_test)


def fashion_mnist(folder: str | pathlib.Path) -> Images:
    """Fashion-MNIST, of the same sizes as MNIST."""
    return mnist(folder, FASHION_MNIST, "fashion-mnist")


def _idx_file(path: pathlib.Path, md5: str, name: str) -> np.ndarray:
    content = _read(path, name)
    with _readable(path):
        content = gzip.decompress(content)
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise ValueError(f"its content must have the MD5 sum {md5}, got {found}")
        return read_idx(content)


def read_idx(content: bytes) -> np.ndarray:
    """An IDX file of unsigned bytes: 0, 0, 8, rank, then the sizes as big-endian i32, then the data."""
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 or len(content) < 4 + 4 * content[3]:
        raise ValueError(
            f"content must be an IDX file of unsigned bytes, got one that begins {content[:4]!r}."
        )
    start = 4 + 4 * content[3]
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
    if len(content) - start != int(np.prod(shape, dtype=object)):
        raise ValueError(f"content must hold {shape} bytes after its header, got {len(content) - start}.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


# --- CIFAR-10


def cifar10(folder: str | pathlib.Path, records: int = 10000) -> Images:
    """CIFAR-10, 50000 images of 32 x 32 x 3 to train and 10000 to test, in batches of `records` images."""
    place = _place(folder, "cifar-10-batches-bin")
    archive = pathlib.Path(folder) / "cifar-10-binary.tar.gz"
    if archive.exists():
        batches = _unpacked(archive)
        place = archive
    else:
        batches = {name: _read(place / name, "cifar-10-batches-bin") for name in CIFAR10}
    with _readable(place):
        x, y = (
            np.concatenate(z)
            for z in zip(*(_cifar_batch(batches, b, records) for b in CIFAR10[:5]), strict=True)
        )
        x_test, y_test = _cifar_batch(batches, CIFAR10[5], records)
        for labels in (y, y_test):
            if len(set(np.bincount(labels, minlength=CLASSES))) > 1:
                raise ValueError(f"it must hold as many images of each class, got {np.bincount(labels)}")
    return _normalised(place, x, y, x_test, y_test)


def _unpacked(path: pathlib.Path) -> dict[str, bytes]:
    """The batches in an archive, which is not unpacked to disk."""
    content = _read(path, "cifar-10-batches-bin")
    with _readable(path), tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = (member for member in archive if member.isfile() and member.name.endswith(".bin"))
        found = {pathlib.PurePosixPath(m.name).name: archive.extractfile(m).read() for m in files}
        if sorted(found) != sorted(CIFAR10):
            raise ValueError(f"it must hold {list(CIFAR10)}, got {sorted(found)}")
        return found


def _cifar_batch(batches: Mapping[str, bytes], name: str, records: int) -> tuple[np.ndarray, np.ndarray]:
    """Records of a label and the planes of red, green and blue, each 32 x 32."""
    size, content = 1 + 3 * 32 * 32, batches[name]
    if len(content) != records * size:
        raise ValueError(f"{name} must hold {records} records of {size} bytes, got {len(content)} bytes")
    rows = np.frombuffer(content, np.uint8).reshape(records, size)
    _check_labels(name, rows[:, 0])
    return rows[:, 1:].reshape(records, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]


# --- Planetoid


def planetoid(folder: str | pathlib.Path, name: str, sizes: tuple[int, ...] | None = None) -> Graph:
    """A Planetoid graph: the standard split, features with rows that sum to one.

    Args:
      folder: where `ind.NAME.x`, `.tx`, `.allx`, `.y`, `.ty`, `.ally`, `.graph` and `.test.index` are, or
        the folder above.
      name: 'cora', 'citeseer' or 'pubmed'.
      sizes: (nodes, features, classes, training nodes, test nodes); default: those of the name.
    """
    if sizes is None and name not in PLANETOID:
        raise ValueError(f"name must be one of {list(PLANETOID)}, got {name!r}.")
    place = _place(folder, "planetoid")
    parts = {}
    for part, convert in _PARTS.items():
        path = place / f"ind.{name}.{part}"
        content = _read(path, "planetoid")
        with _readable(path):
            parts[part] = convert(_Unpickler(io.BytesIO(content), encoding="latin1").load())
    path = place / f"ind.{name}.test.index"
    content = _read(path, "planetoid")
    with _readable(path):
        parts["test.index"] = np.array([int(line) for line in content.split()], np.int64)
    with _readable(place):
        return _graph(name, parts, PLANETOID[name] if sizes is None else sizes)


def _graph(name: str, parts: Mapping[str, Any], sizes: tuple[int, ...]) -> Graph:
    allx, tx, ally, ty = (parts[part] for part in ("allx", "tx", "ally", "ty"))
    index, known, training = parts["test.index"], len(allx), len(parts["y"])
    nodes = int(index.max(initial=-1)) + 1  # CiteSeer has test nodes without features: they stay zero
    found = (nodes, allx.shape[1], ally.shape[1], training, len(index))
    if found != sizes:
        raise ValueError(f"{name} must have {sizes} (nodes, features, classes, train, test), got {found}")
    if index.min() < known or len(np.unique(index)) < len(index):
        raise ValueError(
            f"{name}'s test nodes must be different ones from {known} on, got {index.min()} or repeats"
        )
    if (len(ally), len(tx), len(ty)) != (known, len(index), len(index)) or training > known:
        raise ValueError(f"{name}'s parts must belong together, got {[len(z) for z in (allx, ally, tx, ty)]}")
    features, one_hot = np.zeros((nodes, allx.shape[1]), np.float32), np.zeros((nodes, ally.shape[1]))
    features[:known], features[index] = allx, tx
    one_hot[:known], one_hot[index] = ally, ty
    pairs = parts["graph"]
    if pairs.min(initial=0) < 0 or pairs.max(initial=0) >= nodes:
        raise ValueError(
            f"{name}'s graph must have nodes from 0 to {nodes - 1}, got {pairs.min()} to {pairs.max()}"
        )
    return Graph(
        features / np.maximum(features.sum(1, keepdims=True), 1e-12),
        one_hot.argmax(1).astype(np.int32),
        pairs.astype(np.int32),
        np.arange(training),
        np.arange(training, min(training + 500, known)),
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
            raise pickle.UnpicklingError(f"it must hold arrays and lists, got {module}.{name}")
        return _KNOWN[module, name]


def _as_features(matrix: Any) -> np.ndarray:
    """A csr matrix (or an array) of finite numbers that are not negative, as an array f32[n, F]."""
    if isinstance(matrix, _Csr):
        rows, columns = vars(matrix).get("_shape", vars(matrix).get("shape"))
        indptr, indices, data = (np.asarray(z) for z in (matrix.indptr, matrix.indices, matrix.data))
        if not indptr.dtype.kind == indices.dtype.kind == "i" or data.dtype.kind not in "biuf":
            kinds = [str(z.dtype) for z in (indptr, indices, data)]
            raise ValueError(f"it must hold integers for its places and numbers there, got {kinds}")
        counts = np.diff(indptr)
        if (
            len(indptr) != rows + 1
            or indptr[0] != 0
            or counts.min(initial=0) < 0
            or indptr[-1] != len(indices)
        ):
            raise ValueError(f"its rows must follow each other, got indptr {indptr}")
        if indices.min(initial=0) < 0 or indices.max(initial=0) >= columns:
            raise ValueError(f"its columns must be below {columns}, got {indices.min()} to {indices.max()}")
        dense = np.zeros((rows, columns), data.dtype)
        dense[np.repeat(np.arange(rows), counts), indices] = data
        matrix = dense
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "biuf":
        raise ValueError(f"it must hold a matrix of numbers, got {type(matrix).__name__}")
    # What is handed out is what is checked: a float64 may be finite, and its float32 infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        held = matrix.astype(np.float32)
        finite = np.isfinite(held.sum(1)).all()
    if not (finite and matrix.min(initial=0) >= 0):
        raise ValueError(
            "its features must be finite as float32, each row's sum too, and not negative, "
            f"got {matrix.min()} to {matrix.max()}"
        )
    return held


def _as_classes(matrix: Any) -> np.ndarray:
    """Labels as rows with at most a single 1."""
    matrix = _as_features(matrix)
    if not np.isin(matrix, (0, 1)).all() or matrix.sum(1).max(initial=0) > 1:
        raise ValueError("its labels must be rows of 0 with at most a single 1")
    return matrix


def _as_pairs(graph: Any) -> np.ndarray:
    """Each undirected edge once, i64[E, 2], from a dictionary of lists of neighbours."""
    if not isinstance(graph, dict):
        raise ValueError(f"it must hold a dictionary, got {type(graph).__name__}")
    ends = [(a, b) for a, others in graph.items() for b in others]
    for node in (end for both in ends for end in both):
        # A bool is an int to Python, and NumPy would cut a fraction off.
        if isinstance(node, bool) or not isinstance(node, (int, np.integer)):
            raise ValueError(f"its nodes must be integers, got {node!r}")
    pairs = {(min(both), max(both)) for both in ends if both[0] != both[1]}
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


_PARTS = {
    "allx": _as_features,
    "tx": _as_features,
    "ally": _as_classes,
    "ty": _as_classes,
    "y": _as_classes,
    "graph": _as_pairs,
}


# --- Text


def tiny_shakespeare(folder: str | pathlib.Path, md5: str = SHAKESPEARE) -> np.ndarray:
    """A million characters of Shakespeare's plays as ASCII codes, u8[1115394]."""
    path = pathlib.Path(folder)
    path = path if path.is_file() else path / "tinyshakespeare.txt"
    content = _read(path, "tinyshakespeare.txt")
    with _readable(path):
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise ValueError(f"its content must have the MD5 sum {md5}, got {found}")
    return np.frombuffer(content, np.uint8)


# --- What they share


def _place(folder: str | pathlib.Path, name: str) -> pathlib.Path:
    """The folder of a set: in the given one, or the given one itself."""
    folder = pathlib.Path(folder)
    return folder / name if (folder / name).is_dir() else folder


def _read(path: pathlib.Path, name: str) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there. You find it at {SOURCES[name]}.")
    return path.read_bytes()


@contextlib.contextmanager
def _readable(path: pathlib.Path) -> Iterator[None]:
    """One kind of exception, with the path, for all that damaged and hostile bytes can lead to."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path} is damaged, or another file than it should be: {error}.") from error


def _check_labels(where: Any, labels: np.ndarray) -> None:
    if labels.max(initial=0) >= CLASSES:
        raise ValueError(f"{where} must hold labels of at most {CLASSES - 1}, got {labels.max()}")


def _normalised(
    place: str | pathlib.Path, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
) -> Images:
    """Zero mean and unit variance over the training images, which came from this place."""
    mean, deviation = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    if not deviation > 0:
        raise ValueError(f"{place} must hold images of more than one value, got {mean:g} in each pixel.")
    arrays = []
    for images in (x, x_test):
        images = images.astype(np.float32)
        images -= np.float32(mean)
        images /= np.float32(deviation)
        arrays.append(images)
    return Images(arrays[0], y.astype(np.int32), arrays[1], y_test.astype(np.int32))
