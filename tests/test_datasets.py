"""The loaders read what the formats say, and refuse everything else in one way."""

import gzip
import hashlib
import io
import os
import pathlib
import pickle
import re
import subprocess
import sys
import tarfile
from collections import defaultdict

import numpy as np
import pytest
import scipy.sparse

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
DEBIANS = pathlib.Path("/usr/share/datasets/fashion-mnist")
sys.path.insert(0, str(FOLDER))

import datasets  # noqa: E402

# --- IDX: MNIST and Fashion-MNIST


def write_idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder, images, labels):
    contents = [images["train"], labels["train"], images["test"], labels["test"]]
    md5 = {}
    for name, content in zip(datasets.MNIST, contents, strict=True):
        content = write_idx(content)
        (folder / name).write_bytes(gzip.compress(content))
        md5[name] = hashlib.md5(content).hexdigest()
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
        with pytest.raises(
            ValueError, match=r"train-images-idx3-ubyte.gz is damaged, .*must have the MD5 sum"
        ):
            datasets.mnist(folder, md5)


def test_mnist_with_too_few_labels_is_refused(mnist):
    folder, images, labels = mnist
    labels["test"] = labels["test"][:-1]
    with pytest.raises(ValueError, match=r"one label per image, got \(3, 28, 28\) and \(2,\)"):
        datasets.mnist(folder, write_mnist(folder, images, labels))


def test_files_that_were_compressed_anew_are_good(mnist):
    folder, images, labels = mnist
    md5 = write_mnist(folder, images, labels)
    for name in datasets.MNIST:
        content = gzip.decompress((folder / name).read_bytes())
        (folder / name).write_bytes(gzip.compress(content, compresslevel=1, mtime=7))
    assert datasets.mnist(folder, md5).x.shape == (6, 28, 28, 1)


def test_labels_out_of_range_are_refused(mnist):
    folder, images, labels = mnist
    labels["train"][2] = 10
    with pytest.raises(ValueError, match="labels of at most 9, got 10"):
        datasets.mnist(folder, write_mnist(folder, images, labels))


def test_a_set_in_a_folder_of_sets(mnist):
    folder, images, labels = mnist
    (folder / "mnist").mkdir()
    md5 = write_mnist(folder / "mnist", images, labels)
    assert len(datasets.mnist(folder, md5).x) == 6


@pytest.mark.slow
@pytest.mark.skipif(not DEBIANS.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debians_copy_of_fashion_mnist_is_accepted():
    found = datasets.fashion_mnist(DEBIANS)
    assert (found.x.shape, found.x_test.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
    assert np.bincount(found.y).tolist() == [6000] * 10


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (datasets.mnist, ["train-images-idx3-ubyte.gz is not there", "cvdf-datasets"]),
        (datasets.fashion_mnist, ["zalandoresearch", "dataset-fashion-mnist"]),
        (datasets.cifar10, ["data_batch_1.bin is not there", "kriz/cifar.html"]),
        (lambda folder: datasets.planetoid(folder, "cora"), ["ind.cora.allx is not there", "kimiyoung"]),
        (datasets.tiny_shakespeare, ["tinyshakespeare.txt is not there", "char-rnn"]),
    ],
)
def test_a_set_that_is_missing_says_where_to_get_it(tmp_path, load, words):
    with pytest.raises(FileNotFoundError) as error:
        load(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: c[:6], lambda c: b"\1" + c[1:]]
)
def test_broken_idx_is_refused(change):
    content = write_idx(np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(datasets.read_idx(content), np.arange(12).reshape(3, 4))
    with pytest.raises(ValueError, match="content must"):
        datasets.read_idx(change(content))


# --- CIFAR-10, binary


RECORDS = 20


@pytest.fixture
def cifar():
    """Each record: the label, then the planes of red, green and blue."""
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (RECORDS, 3, 32, 32)).astype(np.uint8) for name in datasets.CIFAR10}
    labels = {name: rng.permutation(np.arange(RECORDS) % 10).astype(np.uint8) for name in datasets.CIFAR10}
    contents = {
        name: b"".join(
            bytes([label]) + image.tobytes() for label, image in zip(labels[name], images[name], strict=True)
        )
        for name in images
    }
    return images, labels, contents


def write_archive(folder, batches):
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, content in {"batches.meta.txt": b"airplane\n", **batches}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_batches(folder, batches):
    (folder / "cifar-10-batches-bin").mkdir()
    for name, content in batches.items():
        (folder / "cifar-10-batches-bin" / name).write_bytes(content)


@pytest.mark.parametrize("write", [write_archive, write_batches])
def test_cifar10(cifar, tmp_path, write):
    images, labels, contents = cifar
    write(tmp_path, contents)
    found = datasets.cifar10(tmp_path, RECORDS)
    assert found.x.shape == (5 * RECORDS, 32, 32, 3)
    train = np.concatenate([images[name] for name in datasets.CIFAR10[:5]])
    np.testing.assert_allclose(found.x * train.std() + train.mean(), train.transpose(0, 2, 3, 1), atol=1e-3)
    np.testing.assert_array_equal(found.y_test, labels["test_batch.bin"])


@pytest.mark.parametrize("write", [write_archive, write_batches])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:-1], "20 records of 3073 bytes, got 61459"),
        (lambda c: c + c, "20 records of 3073 bytes, got 122920"),
        (lambda c: bytes([10]) + c[1:], "labels of at most 9, got 10"),
        (lambda c: bytes([(c[0] + 1) % 10]) + c[1:], "as many images of each class"),
    ],
)
def test_broken_cifar10_is_refused(cifar, tmp_path, write, change, message):
    write(tmp_path, {**cifar[2], "test_batch.bin": change(cifar[2]["test_batch.bin"])})
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}.*{message}"):
        datasets.cifar10(tmp_path, RECORDS)


def test_an_archive_without_a_batch_is_refused(cifar, tmp_path):
    write_archive(tmp_path, {k: v for k, v in cifar[2].items() if k != "data_batch_3.bin"})
    with pytest.raises(ValueError, match="must hold"):
        datasets.cifar10(tmp_path, RECORDS)


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


def test_what_a_graph_convolution_sums_with():
    nodes = np.arange(3)
    graph = datasets.Graph(np.eye(3), nodes, np.array([[0, 1], [1, 2]]), nodes, nodes, nodes)
    np.testing.assert_array_equal(graph.adjacency(), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    side = 1 / np.sqrt(6)
    expected = [[1 / 2, side, 0], [side, 1 / 3, side], [0, side, 1 / 2]]
    np.testing.assert_allclose(datasets.normalised_adjacency(graph.adjacency()), expected, rtol=1e-6)


def test_planetoid_of_other_sizes_is_refused(tmp_path):
    write_planetoid(tmp_path, "cora", 2)
    with pytest.raises(
        ValueError, match=r"cora must have \(2708, 1433, 7, 140, 1000\) .* got \(7, 4, 3, 2, 2\)"
    ):
        datasets.planetoid(tmp_path, "cora")


def test_planetoid_graph_with_unknown_nodes_is_refused(tmp_path):
    write_planetoid(tmp_path, "tiny", 2, graph={0: [7]})
    with pytest.raises(ValueError, match="nodes from 0 to 6, got 0 to 7"):
        datasets.planetoid(tmp_path, "tiny", (7, 4, 3, 2, 2))


def csr(matrix, **changes):
    matrix = scipy.sparse.csr_matrix(matrix)
    for name, values in changes.items():
        setattr(matrix, name, np.asarray(values, getattr(matrix, name).dtype))
    return matrix


SIZES = (7, 4, 3, 2, 2)
ONES = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("graph", {0: [-1]}, "nodes from 0 to 6, got -1"),
        ("graph", {0: ["a"]}, "nodes must be integers, got 'a'"),
        ("graph", {0: [1.7], 2: [3.2]}, "nodes must be integers, got 1.7"),
        ("graph", {0: [float("nan")]}, "nodes must be integers, got nan"),
        ("graph", {0: [True]}, "nodes must be integers, got True"),
        ("graph", {0.5: [1]}, "nodes must be integers, got 0.5"),
        ("graph", {0: 1}, "damaged"),
        ("graph", [1, 2], "must hold a dictionary, got list"),
        ("tx", csr(ONES, indices=[0, 1, 2, 4, 0, 1, 2, 3]), "columns must be below 4, got 0 to 4"),
        ("tx", csr(ONES, indices=[0, 1, 2, -1, 0, 1, 2, 3]), "columns must be below 4, got -1"),
        ("tx", csr(ONES, indptr=[0, 9, 8]), "rows must follow each other"),
        ("tx", csr(ONES * np.nan), "features must be finite as float32, .* and not negative"),
        ("tx", csr(-ONES), "features must be finite .* and not negative, got -1"),
        ("tx", np.full((2, 4), 1e300), "features must be finite as float32, .* got 1e\\+300"),
        ("tx", csr(np.full((2, 4), 1e300)), "features must be finite as float32, .* got 1e\\+300"),
        ("tx", np.full((2, 4), 3e38), "each row's sum too"),
        ("tx", csr(ONES.astype(complex)), "numbers there, got .*complex"),
        ("tx", csr(ONES[:1]), "parts must belong together"),
        ("tx", ONES[:, :3], "damaged"),
        ("tx", "matrix", "matrix of numbers, got str"),
        ("ty", np.array([[1.0, 1, 0], [0, 0, 1]]), "at most a single 1"),
        ("ty", np.array([[2.0, 0, 0], [0, 0, 1]]), "at most a single 1"),
        ("test.index", b"6\n6\n", "test nodes must be different ones from 4 on"),
        ("test.index", b"6\n1\n", "test nodes must be different ones from 4 on, got 1"),
        ("test.index", b"6\n4.5\n", "test.index is damaged"),
        ("test.index", b"", "tiny must have"),
    ],
)
def test_planetoid_out_of_range_is_refused(tmp_path, part, value, message):
    write_planetoid(tmp_path, "tiny", 2)
    content = value if isinstance(value, bytes) else pickle.dumps(value, protocol=2)
    (tmp_path / f"ind.tiny.{part}").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        datasets.planetoid(tmp_path, "tiny", SIZES)
    assert str(tmp_path) in str(error.value)


def test_planetoid_of_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="name must be one of .*got 'reddit'"):
        datasets.planetoid(tmp_path, "reddit")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_planetoid_runs_no_code(tmp_path):
    write_planetoid(tmp_path, "tiny", 2)
    (tmp_path / "ind.tiny.graph").write_bytes(pickle.dumps(Malicious(tmp_path / "made"), protocol=2))
    with pytest.raises(
        ValueError, match=r"ind.tiny.graph is damaged.*arrays and lists, got (posix|nt).mkdir"
    ):
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


def test_tiny_shakespeare(tmp_path):
    text = b"First Citizen:"
    (tmp_path / "tinyshakespeare.txt").write_bytes(text)
    for place in (tmp_path, tmp_path / "tinyshakespeare.txt"):
        assert datasets.tiny_shakespeare(place, hashlib.md5(text).hexdigest()).tobytes() == text
    with pytest.raises(ValueError, match="tinyshakespeare.txt is damaged, .*MD5 sum 6fb458f1"):
        datasets.tiny_shakespeare(tmp_path)


# --- Damage of any kind


def damaged(content, rng, number):
    for length in np.linspace(0, len(content) - 1, number).astype(int):
        yield content[:length]
    for place in rng.integers(0, len(content), number):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        yield bytes(changed)
    yield rng.bytes(200)
    yield b""


def planetoid_of_tiny(folder):
    write_planetoid(folder, "tiny", 2)
    return lambda: datasets.planetoid(folder, "tiny", SIZES)


def mnist_of_six(folder):
    rng = np.random.default_rng(0)
    images = {"train": rng.integers(0, 256, (6, 28, 28)), "test": rng.integers(0, 256, (3, 28, 28))}
    md5 = write_mnist(folder, images, {"train": np.arange(6), "test": np.arange(3)})
    return lambda: datasets.mnist(folder, md5)


def cifar_of_ten(folder):
    record = {
        name: b"".join(bytes([k]) + bytes(3071) + b"\1" for k in range(10)) for name in datasets.CIFAR10
    }
    write_archive(folder, record)
    return lambda: datasets.cifar10(folder, 10)


def test_images_of_one_value_are_refused(tmp_path):
    images = {part: np.full((count, 28, 28), 7) for part, count in (("train", 6), ("test", 3))}
    md5 = write_mnist(tmp_path, images, {"train": np.arange(6), "test": np.arange(3)})
    with pytest.raises(
        ValueError, match=f"{tmp_path} must hold images of more than one value, got 7 in each"
    ):
        datasets.mnist(tmp_path, md5)


@pytest.mark.filterwarnings("ignore")  # NumPy's, about types that only damage can ask for
@pytest.mark.parametrize(
    "write", [planetoid_of_tiny, mnist_of_six, pytest.param(cifar_of_ten, marks=pytest.mark.slow)]
)
def test_damage_ends_in_one_kind_of_exception_with_the_path(tmp_path, write):
    load, rng = write(tmp_path), np.random.default_rng(0)
    load()
    refused = 0
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        for changed in damaged(content, rng, 40):
            path.write_bytes(changed)
            try:
                load()  # a flip may hit what does not matter, or make another feature of one
            except ValueError as error:
                assert str(tmp_path) in str(error)  # noqa: PT017
                refused += 1
        path.write_bytes(content)
    assert refused > 40


def test_from_the_root_they_are_in_a_package():
    program = "from examples import datasets; assert datasets.MNIST"
    subprocess.run([sys.executable, "-c", program], cwd=FOLDER.parent, check=True)
