import os
import re
import socket
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.csgraph
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cgalr_jax import topology
from cgalr_jax.topology import rips

births = jax.jit(topology.compute_births)
ONE_ROUNDING = np.finfo(np.float32).eps  # of 1, where 1 - births is rounded
ORDERS, NORMS = [1.0, 2.0, 3.0], [1.0, 2.0, np.inf]
weights = st.floats(0.0, 1.0, width=32)
# A grid of few values brings ties, bars on the diagonal and equal points.
diagrams = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 6), st.just(2)), elements=st.integers(0, 8).map(lambda n: n / 8)
).map(lambda pairs: np.sort(pairs, axis=1))


@st.composite
def connectomes(draw, max_units=7):
    units = draw(st.integers(1, max_units))
    upper = np.triu(draw(hnp.arrays(np.float32, (units, units), elements=weights | st.just(1.0))), k=1)
    return upper + upper.T


@pytest.fixture(scope="module")
def gph():
    return pytest.importorskip("gph", reason="giotto-ph has no wheel for this Python")


def random_connectome(seed, units, samples=64):
    return topology.functional_connectome(jax.random.normal(jax.random.key(seed), (samples, units)))


# --- Diagrams.


@pytest.mark.usefixtures("gph")
@given(connectomes())
def test_components_die_when_our_births_say(matrix):
    units = len(matrix)
    components, cycles = rips.vietoris_rips(matrix)
    assert components.shape == (units - 1, 2)
    assert components.dtype == cycles.dtype == np.float32
    np.testing.assert_array_equal(components[:, 0], 0)
    if units > 1:
        np.testing.assert_allclose(1 - components[::-1, 1], births(matrix), rtol=0, atol=ONE_ROUNDING)
    for diagram in (components, cycles):
        assert np.all((diagram >= 0) & (diagram <= 1) & (diagram[:, :1] <= diagram))


@pytest.mark.usefixtures("gph")
@given(connectomes(), st.randoms(use_true_random=False))
def test_diagrams_do_not_depend_on_the_order_of_the_units(matrix, random):
    order = list(range(len(matrix)))
    random.shuffle(order)
    for before, after in zip(
        rips.vietoris_rips(matrix), rips.vietoris_rips(matrix[np.ix_(order, order)]), strict=True
    ):
        np.testing.assert_array_equal(before, after)


@pytest.mark.usefixtures("gph")
@pytest.mark.parametrize("maxdim", [0, 1, 2])
@pytest.mark.parametrize("units", [2, 5, 24])
def test_ripser_finds_the_same_diagrams(units, maxdim):
    ripser = pytest.importorskip("ripser")
    matrix = np.asarray(random_connectome(units, units))
    dissimilarity = 1 - matrix
    np.fill_diagonal(dissimilarity, 0)
    expected = ripser.ripser(dissimilarity, distance_matrix=True, maxdim=maxdim)["dgms"]
    got = rips.vietoris_rips(matrix, maxdim)
    assert len(got) == maxdim + 1
    for ours, theirs in zip(got, expected, strict=True):
        theirs = theirs[np.isfinite(theirs[:, 1])]
        np.testing.assert_allclose(ours, theirs[np.lexsort(theirs.T[::-1])], rtol=0, atol=ONE_ROUNDING)


@pytest.mark.usefixtures("gph")
@given(connectomes())
def test_reciprocal_lengths_are_the_groups_closed_by_shortest_paths(matrix):
    gph = pytest.importorskip("gph")
    lengths = 1 / (1 + matrix)
    np.fill_diagonal(lengths, 0)
    closed = scipy.sparse.csgraph.shortest_path(lengths, directed=False).astype(np.float32)
    np.testing.assert_array_equal(closed, lengths)
    expected = gph.ripser_parallel(closed, maxdim=1, metric="precomputed")["dgms"][1]
    components, cycles = rips.vietoris_rips(matrix, metric="reciprocal")
    np.testing.assert_array_equal(cycles, expected[np.lexsort(expected.T[::-1])])
    assert components.shape == (len(matrix) - 1, 2)
    if len(matrix) > 1:
        np.testing.assert_array_equal(components[::-1, 1], 1 / (1 + np.asarray(births(matrix))))


@pytest.mark.usefixtures("gph")
def test_equal_units_keep_their_bars_of_length_zero():
    matrix = np.ones((4, 4)) - np.eye(4)  # four times the same unit
    components, cycles = rips.vietoris_rips(matrix)
    np.testing.assert_array_equal(components, np.zeros((3, 2)))
    assert cycles.shape == (0, 2)


@pytest.mark.usefixtures("gph")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rips.vietoris_rips(np.zeros((2, 3))), r"connectome must be \[P, P\].*\(2, 3\)"),
        (lambda: rips.vietoris_rips(np.zeros((0, 0))), r"P at least 1, got shape \(0, 0\)"),
        (lambda: rips.vietoris_rips(np.full((2, 2), 1.5)), r"connectome must be in \[0, 1\].*1\.5"),
        (lambda: rips.vietoris_rips(np.full((2, 2), np.nan)), "connectome must be in .*nan"),
        (lambda: rips.vietoris_rips(np.zeros(3)), r"connectome must be \[P, P\].*\(3,\)"),
        (lambda: rips.vietoris_rips(1j * np.eye(2)), "connectome must be real, got complex"),
        (lambda: rips.vietoris_rips(np.zeros((2, 2)), -1), "maxdim must be an integer of at least 0, got -1"),
        (
            lambda: rips.vietoris_rips(np.eye(2), metric="cosine"),
            "metric must be 'correlation' or 'reciprocal', got 'cosine'",
        ),
        (
            lambda: rips.wasserstein_distance(np.eye(2), np.eye(2), mindim=2),
            "mindim must be an integer from 0 to 1, got 2",
        ),
        (lambda: rips.wasserstein_distance(np.eye(2), np.eye(2), order=0.5), "order must be .* got 0.5"),
        (
            lambda: rips.wasserstein_distance(jnp.zeros((1, 1)), jnp.zeros((2, 2))),
            "connectome_a .* P at least 2",
        ),
        (lambda: rips.wasserstein_distance(jnp.zeros((2, 2)), jnp.zeros(2)), r"connectome_b .*\(2,\)"),
    ],
)
def test_errors_name_the_argument_and_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_giotto_the_error_says_what_to_install_and_where(monkeypatch):
    monkeypatch.setitem(sys.modules, "gph", None)
    with pytest.raises(ImportError, match=r"cgalr-jax\[giotto\].*Python 3\.8 to 3\.12"):
        rips.vietoris_rips(np.zeros((2, 2)))


# --- Wasserstein distance of diagrams.


@given(diagrams, diagrams, st.sampled_from(ORDERS), st.sampled_from(NORMS))
def test_optimal_transport_agrees_on_the_wasserstein_distance(a, b, order, internal_p):
    ot = pytest.importorskip("ot")
    n, m = len(a), len(b)
    cost = np.zeros((n + m, n + m))  # the textbook's square problem
    cost[:n, :m] = np.linalg.norm(a[:, None] - b[None], ord=internal_p, axis=-1) ** order
    for diagram, block in ((a, cost[:n, m:]), (b, cost[n:, :m].T)):
        middle = np.repeat(diagram.mean(axis=1, keepdims=True), 2, axis=1)
        block[:] = (np.linalg.norm(diagram - middle, ord=internal_p, axis=1) ** order)[:, None]
    expected = ot.emd2(np.ones(n + m), np.ones(n + m), cost) ** (1 / order) if n + m else 0.0
    np.testing.assert_allclose(rips.diagram_distance(a, b, order, internal_p), expected, atol=1e-7)


@given(diagrams.filter(len), diagrams.filter(len))
def test_persim_agrees_on_the_wasserstein_distance(a, b):
    persim = pytest.importorskip("persim")
    np.testing.assert_allclose(rips.diagram_distance(a, b, order=1), persim.wasserstein(a, b), atol=1e-7)


@given(diagrams, diagrams, diagrams, st.sampled_from(ORDERS), st.sampled_from(NORMS))
def test_wasserstein_is_a_metric_up_to_the_diagonal(a, b, c, order, internal_p):
    ab, ba, bc, ac = (
        rips.diagram_distance(*pair, order, internal_p) for pair in ((a, b), (b, a), (b, c), (a, c))
    )
    np.testing.assert_allclose(ab, ba, atol=1e-7)
    assert ab >= 0
    assert ac <= ab + bc + 1e-7
    assert rips.diagram_distance(a, a[::-1], order, internal_p) == 0
    on_the_diagonal = np.repeat(b[:, :1], 2, axis=1)
    np.testing.assert_allclose(
        rips.diagram_distance(a, np.concatenate([b, on_the_diagonal]), order, internal_p), ab
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 1]], [[0, 1]], np.inf), r"order must be in \[1, infinity\), got inf"),
        (([[0, 1]], [[0, 1]], 2, 3), "internal_p must be 1, 2 or infinity, got 3"),
        (([0, 1], [[0, 1]]), r"diagram_a must have shape \[n, 2\], got \(2,\)"),
        (([[0, 1]], [[0, np.inf]]), "diagram_b must hold finite bars"),
        (([[1, 0]], [[0, 1]]), "diagram_a must hold finite bars with birth <= death"),
    ],
)
def test_wasserstein_refuses_what_is_no_diagram(arguments, message):
    with pytest.raises(ValueError, match=message):
        rips.diagram_distance(*arguments)


# --- WD, from the device to the host and back.


@pytest.mark.usefixtures("gph", "strict")
def test_components_alone_stay_below_the_distance_of_births():
    a, b = random_connectome(0, 12), random_connectome(1, 12)
    of_births = topology.top_distance(births(a), births(b))
    of_components = rips.wasserstein_distance(a, b, maxdim=0)
    assert 0 < of_components <= of_births + ONE_ROUNDING
    assert rips.wasserstein_distance(a, b) >= of_components
    np.testing.assert_allclose(
        rips.wasserstein_distance(a, b, normalise=False),
        rips.wasserstein_distance(a, b) * np.sqrt(11),
        rtol=1e-5,
    )


@pytest.mark.usefixtures("gph")
def test_wasserstein_distance_is_a_distance_of_connectomes_of_any_size():
    a, b, larger = random_connectome(0, 6), random_connectome(1, 6), random_connectome(2, 9)
    got = rips.wasserstein_distance(a, b)
    assert got.dtype == jnp.float32
    assert got.shape == ()
    assert got == rips.wasserstein_distance(b, a)
    assert rips.wasserstein_distance(a, a) == 0
    assert rips.wasserstein_distance(a, larger) > 0
    assert jnp.isnan(rips.wasserstein_distance(a, a.at[0].set(jnp.nan)))


@pytest.mark.usefixtures("gph")
def test_the_groups_distance_is_that_of_cycles_only():
    a, b = random_connectome(0, 10), random_connectome(1, 10)
    cycles = [rips.vietoris_rips(c, metric="reciprocal")[1] for c in (a, b)]
    got = rips.wasserstein_distance(a, b, mindim=1, metric="reciprocal", normalise=False)
    np.testing.assert_allclose(got, rips.diagram_distance(*cycles), rtol=1e-6)
    assert got > 0


@pytest.mark.usefixtures("gph")
@pytest.mark.parametrize("wrong", [np.nan, -0.5, 1.5, np.inf])
def test_weights_off_the_unit_interval_give_nan_where_they_are_read(wrong):
    a, b = np.array(random_connectome(0, 5)), random_connectome(1, 5)
    expected = rips.wasserstein_distance(a, b)
    a[3, 1] = a[2, 2] = wrong  # below the diagonal, and on it
    assert rips.wasserstein_distance(a, b) == expected
    a[1, 3] = wrong
    assert jnp.isnan(jax.jit(rips.wasserstein_distance)(a, b))


@pytest.mark.usefixtures("gph")
def test_jit_scan_vmap_and_grad_see_the_same_numbers():
    first = jnp.stack([random_connectome(seed, 8) for seed in range(4)])
    second = first[::-1]
    expected = jnp.stack([rips.wasserstein_distance(a, b) for a, b in zip(first, second, strict=True)])
    assert jnp.all(expected > 0)
    np.testing.assert_array_equal(jax.jit(jax.vmap(rips.wasserstein_distance))(first, second), expected)
    _, scanned = jax.lax.scan(lambda _, pair: (None, rips.wasserstein_distance(*pair)), None, (first, second))
    np.testing.assert_array_equal(scanned, expected)
    gradient = jax.jit(jax.grad(rips.wasserstein_distance))(first[0], second[0])
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


@pytest.mark.usefixtures("gph")
@pytest.mark.parametrize("axis_type", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_every_device_under_jit_sees_the_same_number(axis_type):
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(axis_type,))
    pair = [random_connectome(seed, 8) for seed in (0, 1)]
    expected = rips.wasserstein_distance(*pair)
    replicated = jax.device_put(pair, jax.NamedSharding(mesh, jax.P()))
    got = jax.jit(rips.wasserstein_distance)(*replicated)
    assert len(got.addressable_shards) == len(jax.devices())
    for shard in got.addressable_shards:
        np.testing.assert_array_equal(shard.data, expected)


@pytest.mark.usefixtures("gph")
def test_every_device_of_a_shard_map_sees_the_same_number():
    a, b = random_connectome(0, 8), random_connectome(1, 8)
    mesh = jax.make_mesh((len(jax.devices()),), ("data",))
    everywhere = jax.shard_map(
        lambda a, b: rips.wasserstein_distance(a, b)[None],
        mesh=mesh,
        in_specs=jax.P(),
        out_specs=jax.P("data"),
        check_vma=False,
    )
    np.testing.assert_array_equal(jax.jit(everywhere)(a, b), rips.wasserstein_distance(a, b))


AT_ONCE = """
    import threading
    import numpy as np
    from cgalr_jax.topology import rips

    square = np.random.default_rng(0).random((6, 6))
    found = []
    threads = [threading.Thread(target=lambda: found.append(rips.vietoris_rips(square))) for _ in range(4)]
    for each in threads: each.start()
    for each in threads: each.join()
    print(len(found))
"""


@pytest.mark.usefixtures("gph")
def test_threads_that_are_the_first_to_call_giotto_ph_come_back():
    command = [sys.executable, "-c", textwrap.dedent(AT_ONCE)]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4"]


PROCESS = """
    import sys
    import jax, jax.numpy as jnp
    process = int(sys.argv[2])
    jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", num_processes=2, process_id=process)
    from jax.experimental import multihost_utils
    from cgalr_jax import topology
    from cgalr_jax.topology import rips

    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.P("data"))
    local = jax.random.normal(jax.random.key(process), (32, 8))
    units = jax.make_array_from_process_local_data(rows, local)

    @jax.jit
    def distance(units):
        return rips.wasserstein_distance(*(topology.functional_connectome(x) for x in (units, units**3)))

    print(f"distance {float(distance(units))!r}")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("gph")
def test_two_processes_see_the_same_number():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROCESS), port, str(process)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for process in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    printed = [re.findall(r"distance (.*)", out) for out, _ in outputs]  # beside what the collectives say
    assert len(printed[0]) == 1, outputs
    assert printed[0] == printed[1]
    units = jnp.concatenate([jax.random.normal(jax.random.key(process), (32, 8)) for process in range(2)])
    expected = rips.wasserstein_distance(*(topology.functional_connectome(x) for x in (units, units**3)))
    np.testing.assert_allclose(float(printed[0][0]), expected, rtol=1e-4)
