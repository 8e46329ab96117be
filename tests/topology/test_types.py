"""Every public function under every flag of JAX that strangers set: same values, documented dtypes."""

import contextlib
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from cgalr_jax import topology

RNG = np.random.default_rng(0)
UNITS = np.round(8 * RNG.normal(size=(16, 7)))  # float64; small integers, so that any dtype holds them
A, B = (np.triu(RNG.random((7, 7)), 1) for _ in range(2))  # float64, upper triangles
SORTED = np.sort(RNG.random(6))

FLAGS = {
    "x64": lambda: jax.enable_x64(True),
    "strict dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "no rank promotion": lambda: jax.numpy_rank_promotion("raise"),
}


@contextlib.contextmanager
def all_flags():
    with contextlib.ExitStack() as stack:
        for flag in FLAGS.values():
            stack.enter_context(flag())
        yield


def moments(units=UNITS):
    return topology.update_moments(topology.init_moments(units.shape[1]), units)


def barcodes(**options):
    return [topology.compute_barcode(matrix, **options) for matrix in (A, B)]


def over_devices(function):
    return jax.vmap(function, axis_name="data")(UNITS.reshape(4, 4, 7))


# {what is called: the call, of inputs in float64}
CALLS = {
    "init_moments": lambda: topology.init_moments(3),
    "update_moments": moments,
    "merge_moments": lambda: topology.merge_moments(moments(UNITS[:5]), moments(UNITS[5:])),
    "gather_moments": lambda: over_devices(lambda units: topology.gather_moments(moments(units), "data")),
    "connectome_from_moments": lambda: topology.connectome_from_moments(moments()),
    "functional_connectome": lambda: topology.functional_connectome(UNITS),
    "functional_connectome of dead units": lambda: topology.functional_connectome(np.ones((4, 3))),
    "functional_connectome over devices": lambda: over_devices(
        lambda units: topology.functional_connectome(units, "data")
    ),
    "spanning_tree by Prim": lambda: topology.spanning_tree(A, "prim"),
    "spanning_tree by Boruvka": lambda: topology.spanning_tree(A, "boruvka"),
    "compute_births": lambda: topology.compute_births(A),
    "compute_barcode": lambda: topology.compute_barcode(A),
    "compute_births of one unit": lambda: topology.compute_births(np.zeros((1, 1))),
    "compute_barcode in bins": lambda: topology.compute_barcode(A, bins=5),
    "compute_barcode in bins, mapped": lambda: jax.vmap(lambda matrix: topology.compute_barcode(matrix, 5))(
        np.stack([A, B])
    ),
    "compute_barcode in bins, of two units": lambda: topology.compute_barcode(A[:2, :2], bins=5),
    "compute_barcode of what is symmetric": lambda: topology.compute_barcode(A + A.T, symmetrise=False),
    "top_distance": lambda: topology.top_distance(SORTED, SORTED**2),
    "top_distance of other lengths": lambda: topology.top_distance(SORTED, SORTED[:4]),
    "top_distance of order infinity": lambda: topology.top_distance(SORTED, SORTED[:4], order=np.inf),
    "top_distance, summed": lambda: topology.top_distance(SORTED, SORTED**2, normalise=False),
    "barcode_distance": lambda: topology.barcode_distance(*barcodes()),
    "barcode_distance of bins": lambda: topology.barcode_distance(*barcodes(bins=5)),
    "frobenius_distance": lambda: topology.frobenius_distance(A, B),
}


def test_every_public_function_is_called():
    functions = {name for name in topology.__all__ if inspect.isroutine(getattr(topology, name))}
    functions |= {name for name in topology.__all__ if hasattr(getattr(topology, name), "lower")}
    assert len(functions) >= 12
    assert functions <= {call.split()[0].rstrip(",") for call in CALLS}


@functools.cache
def expected(name):
    return jax.tree.map(np.asarray, CALLS[name]())


# Calls of functions that have another call in the table; they are slow.
VARIANTS = (
    "functional_connectome over devices",
    "compute_barcode in bins, mapped",
    "compute_barcode of what is symmetric",
    "top_distance of other lengths",
    "top_distance, summed",
    "barcode_distance of bins",
)


def calls(quick):
    """Each call of the table; those that are not `quick` only by the slow run."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in CALLS]
    )


def assert_as_documented(found, expected):
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype in (jnp.float32, jnp.int32)
        assert not leaf.weak_type
        assert leaf.dtype == other.dtype
        np.testing.assert_allclose(leaf, other, rtol=1e-6, atol=1e-6)


# A third of them here; all of them, flag by flag too, by the slow run.
@calls(quick=sorted(CALLS.keys() - VARIANTS)[::3])
def test_flags_change_neither_values_nor_dtypes(name):
    documented = expected(name)
    with all_flags():
        assert_as_documented(CALLS[name](), documented)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_by_itself_changes_neither_values_nor_dtypes(flag, name):
    documented = expected(name)
    with FLAGS[flag]():
        assert_as_documented(CALLS[name](), documented)


# Operation by operation, which takes long; Checkify asks compiled code for the same below. Here always: where
# a denominator is zero, where there is nothing to count, and where an infinity is an argument.
STEP_BY_STEP = (
    "functional_connectome of dead units",
    "compute_barcode in bins, of two units",
    "top_distance of order infinity",
)


# Those that have to tell a case from another.
WITH_BRANCHES = (
    *STEP_BY_STEP,
    "merge_moments",
    "compute_births of one unit",
    "top_distance of other lengths",
)


@calls(quick=STEP_BY_STEP[2:])
def test_a_healthy_run_makes_no_nan_on_the_way(name):
    documented = expected(name)
    with jax.disable_jit(), jax.debug_nans(True), jax.debug_infs(True):
        assert_as_documented(CALLS[name](), documented)


@calls(quick=WITH_BRANCHES)
def test_checkify_finds_nothing_in_a_healthy_run(name):
    error, found = checkify.checkify(CALLS[name], errors=checkify.float_checks)()
    error.throw()
    assert_as_documented(found, expected(name))


DTYPES = [
    bool,
    np.float64,
    jnp.bfloat16,
    *(
        pytest.param(each, marks=pytest.mark.slow)
        for each in (np.uint8, np.int32, np.float16, jnp.float8_e4m3fn)
    ),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_any_real_dtype_is_taken_for_the_float32_that_it_holds(dtype):
    units = np.abs(UNITS).astype(dtype)
    square = (UNITS[:5, :5] > 0).astype(dtype)
    ordered = np.arange(2).astype(dtype)
    calls = [
        (topology.functional_connectome, [units]),
        (topology.compute_barcode, [square]),
        (topology.frobenius_distance, [square, square.T]),
        (topology.top_distance, [ordered, ordered[::-1]]),
    ]
    for function, inputs in calls:
        same = function(*(x.astype(np.float32) for x in inputs))
        with all_flags():
            assert_as_documented(function(*inputs), same)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (topology.functional_connectome, "units"),
        (lambda x: topology.functional_connectome(jnp.asarray(x)), "units"),
        (lambda x: topology.update_moments(topology.init_moments(3), x), "units"),
        (topology.spanning_tree, "connectome"),
        (topology.compute_births, "connectome"),
        (lambda x: topology.compute_barcode(x, bins=4), "connectome"),
        (lambda x: topology.frobenius_distance(x, x.real), "connectome_a"),
        (lambda x: topology.frobenius_distance(x.real, x), "connectome_b"),
        (lambda x: topology.top_distance(x[0], x[0].real), "births_a"),
        (lambda x: topology.top_distance(x[0].real, x[0]), "births_b"),
    ],
)
def test_complex_numbers_are_refused_by_name(call, argument):
    with pytest.raises(ValueError, match=f"^{argument} must be real, got complex"):
        call(np.eye(3) * (1 + 1j))
