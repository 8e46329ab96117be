"""Every example runs, learns nothing untrue on the way, and the loaders read what the formats say."""

import gzip
import hashlib
import io
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile
from collections import defaultdict

import numpy as np
import pytest
import scipy.sparse

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "datasets.py")
sys.path.insert(0, str(FOLDER))

import datasets  # noqa: E402


def run(*command, cwd):
    environment = {
        **os.environ,
        "PYTHONPATH": str(FOLDER.parent),
        "MPLBACKEND": "Agg",
        "JAX_PLATFORMS": "cpu",
    }
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:cgalr_jax", *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_example_runs(script, tmp_path):
    assert run(str(FOLDER / script), "--quick", "--seed", "1", cwd=tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_example_is_short_and_says_what_it_does(script, tmp_path):
    source = (FOLDER / script).read_text()
    assert len(source.splitlines()) <= 200
    shown = run(str(FOLDER / script), "--help", cwd=tmp_path)
    assert {"--quick", "--seed"} <= set(shown.replace(",", " ").split())
    assert source.split('"""')[1].split()[0] in shown


# --- IDX: MNIST and Fashion-MNIST


def write_idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder, images, labels):
    contents = [images["train"], labels["train"], images["test"], labels["test"]]
    md5 = {}
    for name, content in zip(datasets.MNIST, contents, strict=True):
        compressed = gzip.compress(write_idx(content))
        (folder / name).write_bytes(compressed)
        md5[name] = hashlib.md5(compressed).hexdigest()
    return md5


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    images = {"train": rng.integers(0, 256, (6, 28, 28)), "test": rng.integers(0, 256, (3, 28, 28))}
    labels = {"train": rng.integers(0, 10, 6), "test": rng.integers(0, 10, 3)}
    return tmp_path, images, labels


def test_mnist(mnist):
    folder, images, labels = mnist
    found = datasets.mnist(folder, write_mnist(folder, images, labels))
    assert found.x.shape == (6, 28, 28, 1)
    np.testing.assert_allclose([found.x.mean(), found.x.std()], [0, 1], atol=1e-5)
    restored = found.x_test[..., 0] * images["train"].std() + images["train"].mean()
    np.testing.assert_allclose(restored, images["test"], atol=1e-3)
    np.testing.assert_array_equal(found.y, labels["train"])
    np.testing.assert_array_equal(found.y_test, labels["test"])


def test_files_other_than_the_published_ones_are_refused(mnist):
    folder, images, labels = mnist
    write_mnist(folder, images, labels)
    for md5 in (datasets.MNIST, datasets.FASHION_MNIST):
        with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz must have the MD5 sum"):
            datasets.mnist(folder, md5)


def test_mnist_with_too_few_labels_is_refused(mnist):
    folder, images, labels = mnist
    labels["test"] = labels["test"][:-1]
    with pytest.raises(ValueError, match=r"an image a label, got \(3, 28, 28\) and \(2,\)"):
        datasets.mnist(folder, write_mnist(folder, images, labels))


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: c[:6], lambda c: b"\1" + c[1:]]
)
def test_broken_idx_is_refused(change):
    content = write_idx(np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(datasets.read_idx(content), np.arange(12).reshape(3, 4))
    with pytest.raises(ValueError, match="content must"):
        datasets.read_idx(change(content))


# --- CIFAR-10, binary


def write_cifar(folder, batches):
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {"batches.meta.txt": b"airplane\n", **batches}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest()}


@pytest.fixture
def cifar():
    """Two records a batch: the label, then the planes of red, green and blue."""
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    images = {name: rng.integers(0, 256, (2, 3, 32, 32)).astype(np.uint8) for name in names}
    labels = {name: rng.integers(0, 10, 2).astype(np.uint8) for name in names}
    contents = {
        name: b"".join(
            bytes([label]) + image.tobytes() for label, image in zip(labels[name], images[name], strict=True)
        )
        for name in names
    }
    return images, labels, contents


def test_cifar10(cifar, tmp_path):
    images, labels, contents = cifar
    found = datasets.cifar10(tmp_path, write_cifar(tmp_path, contents))
    assert found.x.shape == (10, 32, 32, 3)
    train = np.concatenate([images[f"data_batch_{i}.bin"] for i in range(1, 6)])
    np.testing.assert_allclose(found.x * train.std() + train.mean(), train.transpose(0, 2, 3, 1), atol=1e-3)
    np.testing.assert_array_equal(found.y_test, labels["test_batch.bin"])


def test_cifar10_other_than_the_published_one_is_refused(cifar, tmp_path):
    write_cifar(tmp_path, cifar[2])
    with pytest.raises(ValueError, match="must have the MD5 sum c32a1d4ab5d03f1284b67883e8d87530"):
        datasets.cifar10(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {k: v for k, v in c.items() if k != "data_batch_3.bin"}, "must hold"),
        (lambda c: {**c, "test_batch.bin": c["test_batch.bin"][:-1]}, "records of 3073 bytes, got 6145"),
        (lambda c: {**c, "test_batch.bin": bytes([10]) + c["test_batch.bin"][1:]}, "at most 9, got 10"),
    ],
)
def test_broken_cifar10_is_refused(cifar, tmp_path, change, message):
    md5 = write_cifar(tmp_path, change(cifar[2]))
    with pytest.raises(ValueError, match=message):
        datasets.cifar10(tmp_path, md5)


# --- Planetoid


def write_planetoid(folder, name, protocol, graph=None):
    """Seven nodes: two to train, two to test (in another order), one isolated and without features."""
    rng = np.random.default_rng(0)
    features = (rng.random((7, 4)) < 0.5).astype(np.float32)
    labels = np.eye(3)[[0, 1, 2, 0, 1, 2, 0]]
    features[5] = 0
    graph = defaultdict(list, graph or {0: [1, 1, 0], 1: [0, 2], 2: [1, 6], 6: [2], 3: [4], 4: [3]})
    test = [6, 4]
    parts = {
        "x": scipy.sparse.csr_matrix(features[:2]),
        "y": labels[:2],
        "allx": scipy.sparse.csr_matrix(features[:4]),
        "ally": labels[:4],
        "tx": scipy.sparse.csr_matrix(features[test]),
        "ty": labels[test],
        "graph": graph,
    }
    for part, value in parts.items():
        (folder / f"ind.{name}.{part}").write_bytes(pickle.dumps(value, protocol=protocol))
    (folder / f"ind.{name}.test.index").write_text("".join(f"{node}\n" for node in test))
    return features, labels


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_planetoid(tmp_path, protocol):
    features, labels = write_planetoid(tmp_path, "tiny", protocol)
    graph = datasets.planetoid(tmp_path, "tiny", (7, 4, 3, 2, 2))
    assert graph.edges.tolist() == [[0, 1], [1, 2], [2, 6], [3, 4]]
    expected = features / np.maximum(features.sum(1, keepdims=True), 1e-12)
    np.testing.assert_allclose(graph.features, expected)
    known = [0, 1, 2, 3, 4, 6]
    np.testing.assert_array_equal(graph.labels[known], labels.argmax(1)[known])
    assert (graph.train.tolist(), graph.validation.tolist(), graph.test.tolist()) == ([0, 1], [2, 3], [4, 6])


def test_planetoid_of_other_sizes_is_refused(tmp_path):
    write_planetoid(tmp_path, "cora", 2)
    with pytest.raises(
        ValueError, match=r"cora must have \(2708, 1433, 7, 140, 1000\) .* got \(7, 4, 3, 2, 2\)"
    ):
        datasets.planetoid(tmp_path, "cora")


def test_planetoid_graph_with_unknown_nodes_is_refused(tmp_path):
    write_planetoid(tmp_path, "tiny", 2, graph={0: [7]})
    with pytest.raises(ValueError, match="nodes below 7, got 7"):
        datasets.planetoid(tmp_path, "tiny", (7, 4, 3, 2, 2))


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_planetoid_runs_no_code(tmp_path):
    write_planetoid(tmp_path, "tiny", 2)
    (tmp_path / "ind.tiny.graph").write_bytes(pickle.dumps(Malicious(tmp_path / "made"), protocol=2))
    with pytest.raises(pickle.UnpicklingError, match=r"arrays and lists, got (posix|nt).mkdir"):
        datasets.planetoid(tmp_path, "tiny", (7, 4, 3, 2, 2))
    assert not (tmp_path / "made").exists()


# --- what is always there


def test_digits_are_split_by_the_seed():
    first, again, other = datasets.digits(0), datasets.digits(0), datasets.digits(1)
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)
    assert first.x.shape == (1000, 8, 8, 1)
    assert first.x_test.shape == (797, 8, 8, 1)


def test_python_source():
    codes = datasets.python_source(1000)
    assert codes.shape == (1000,)
    assert b"import" in datasets.python_source(100_000).tobytes()
    with pytest.raises(ValueError, match="characters must be at most"):
        datasets.python_source(10**9)
