"""How far matrices moved: the same at every width, whatever starts at zero, is frozen, or is no matrix."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

import cgalr_jax
from cgalr_jax import signals
from cgalr_jax.signals.share import largest_share, share_if_alike

SIGNAL = signals.relative_update()


@jax.jit
def compared(before, after):
    return SIGNAL.compare(SIGNAL.read({}, before), SIGNAL.read({}, after))


def distance(before, after):
    return float(compared(before, after))


# Arrays of NumPy: JAX would compile each operation for each shape.


def normal(seed, *shape, fan_in=None):
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) / np.sqrt(fan_in or np.prod(shape[:-1]))).astype(np.float32)


def changed(array, where, value):
    array = array.copy()
    array[where] = value
    return array


def rank_one(seed, inputs, outputs, norm):
    """An update of rank one with this largest singular value."""
    random = np.random.default_rng(seed)
    u, v = (x / np.linalg.norm(x) for x in (random.standard_normal(inputs), random.standard_normal(outputs)))
    return (norm * np.outer(u, v)).astype(np.float32)


def update(seed, inputs, outputs, rank):
    """A random update of this rank with a largest singular value of 1."""
    random = np.random.default_rng(seed)
    u, v = (np.linalg.qr(random.standard_normal((side, rank)))[0] for side in (inputs, outputs))
    return (u @ v.T).astype(np.float32)


def largest_singular_value(matrix):
    small = min(matrix, matrix.T, key=len)
    (square,) = scipy.linalg.eigvalsh(small @ small.T, subset_by_index=[len(small) - 1] * 2)
    return math.sqrt(square)


@pytest.mark.parametrize(
    ("inputs", "outputs"), [(16, 16), (64, 64), (256, 256), (1024, 1024), (784, 128), (20, 300)]
)
def test_the_same_share_of_the_largest_singular_value_is_the_same_distance_at_every_width(inputs, outputs):
    """For an update of a rank between 1 and that of the matrix, on a logarithmic scale half-way."""
    before = normal(0, inputs, outputs)
    largest = largest_singular_value(before)
    rank = round(math.sqrt(inputs * outputs) / (math.sqrt(inputs) + math.sqrt(outputs)))
    after = before + 0.1 * largest * update(1, inputs, outputs, rank)
    assert distance({"w": before}, {"w": after}) == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("rank", [1, None])
def test_whatever_the_rank_it_depends_less_on_the_width_than_the_plain_relative_norm(rank):
    def moved(width):
        before = normal(0, width, width)
        change = 0.2 * update(1, width, width, rank or width)
        plain = float(np.linalg.norm(change) / np.linalg.norm(before))
        return distance({"w": before}, {"w": before + change}), plain

    (narrow, plain_narrow), (wide, plain_wide) = moved(16), moved(512)
    assert abs(math.log(wide / narrow)) < 0.3 * math.log(32)
    if rank == 1:
        assert abs(math.log(wide / narrow)) < 0.6 * abs(math.log(plain_wide / plain_narrow))


@pytest.mark.parametrize(
    ("shape", "inputs"),
    [
        ((3, 3, 32, 64), 288),  # convolution [height, width, in, out]
        ((5, 32, 48), 160),  # the same in one dimension
        ((64, 4, 16), 64),  # attention, [in, heads, dim]
        ((4, 16, 64), 64),  # and back, [heads, dim, out]
    ],
)
def test_axes_are_split_where_that_is_most_balanced(shape, inputs):
    before = normal(0, inputs, int(np.prod(shape)) // inputs)
    after = before + rank_one(1, *before.shape, 0.2)
    wanted = distance({"w": before}, {"w": after})
    assert distance({"w": before.reshape(shape)}, {"w": after.reshape(shape)}) == pytest.approx(wanted)


def test_a_stack_of_layers_says_at_most_twice_what_its_layers_say():
    before = normal(0, 12, 64, 64, fan_in=64)
    after = before * 1.1
    alone = distance({"w": before[0]}, {"w": after[0]})
    stacked = distance({"w": before}, {"w": after})
    assert alone <= stacked * 1.01
    assert stacked < 1.42 * alone


def test_biases_weigh_nothing_and_stacks_of_them_little():
    before = {"w": normal(0, 12, 64, 64, fan_in=64), "b": jnp.zeros((12, 64)), "g": jnp.ones(64)}
    moved = {"w": before["w"] * 1.1, "b": before["b"] + 0.05, "g": before["g"] + 5}
    without = distance({"w": before["w"]}, {"w": moved["w"]})
    assert distance(before, moved) == pytest.approx(without, rel=0.3)


def test_a_matrix_that_starts_at_zero_counts_by_the_size_it_would_have():
    first = rank_one(0, 256, 10, 0.01)
    assert distance({"w": jnp.zeros((256, 10))}, {"w": first}) < 0.05
    body = {"a": normal(1, 128, 256), "b": normal(2, 256, 256), "head": jnp.zeros((256, 10))}
    after = {"a": body["a"] * 1.01, "b": body["b"] * 1.01, "head": first}
    without = distance({k: body[k] for k in "ab"}, {k: after[k] for k in "ab"})
    assert distance(body, after) == pytest.approx(without, rel=0.05)


def test_parameters_that_all_start_at_zero_have_a_finite_distance():
    assert distance({"w": jnp.zeros(3)}, {"w": jnp.full(3, 0.01)}) == pytest.approx(0.01)
    assert distance({"w": jnp.ones(3)}, {"w": jnp.full(3, 1.1)}) == pytest.approx(0.1)
    assert distance({"w": jnp.zeros((4, 4))}, {"w": jnp.zeros((4, 4))}) == 0


def sides(shape):
    splits = [(math.prod(shape[:k]), math.prod(shape[k:])) for k in range(1, len(shape))]
    return max(splits, key=min)


def by_the_formula(before, after):
    """That of the docstring in float64, where every entry is read: matrices of at most 1024 entries."""
    motions, weights = [], []
    for name, matrix in before.items():
        if matrix.ndim >= 2:
            n, m = sides(matrix.shape)
            factor = math.sqrt(n * m) / (math.sqrt(n) + math.sqrt(m))
            size = max(np.linalg.norm(matrix.astype(float)), math.sqrt(m))
            motions.append(math.sqrt(factor) * np.linalg.norm(after[name].astype(float) - matrix) / size)
            weights.append(min(n, m))
    motions, weights = np.array(motions), np.array(weights)
    moved = motions > 1e-3 * motions.max()
    slowest = np.maximum(motions, motions.max() / 30)
    return math.exp(np.sum((weights * np.log(slowest))[moved]) / weights[moved].sum())


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_formula_of_the_docstring(seed):
    random = np.random.default_rng(seed)
    shapes = {"a": (8, 100), "b": (30, 30), "c": (3, 3, 4, 16), "d": (20, 2, 10), "bias": (100,), "e": (2, 9)}
    sizes = 10 ** random.uniform(-2, 1, len(shapes))
    before = {
        name: size * normal(10 * seed + k, *shape)
        for k, ((name, shape), size) in enumerate(zip(shapes.items(), sizes, strict=True))
    }
    # As fast as each other, slow, slower than a thirtieth, frozen: in another order each time.
    shares = random.permutation([1.0, 0.9, 0.1, 0.02, 1e-4, 0.5])
    after = {
        name: matrix + share * sizes.max() * normal(90 + k, *matrix.shape)
        for k, ((name, matrix), share) in enumerate(zip(before.items(), shares, strict=True))
    }
    assert distance(before, after) == pytest.approx(by_the_formula(before, after), rel=1e-4)
    updates = {name: after[name] - before[name] for name in before}
    shares = []
    for name, matrix in before.items():
        n, m = sides(matrix.shape) if matrix.ndim >= 2 else (1, matrix.size)
        size = max(np.linalg.norm(matrix), math.sqrt(m))
        largest = 1 / (1 / math.sqrt(n) + 1 / math.sqrt(m)) if matrix.ndim >= 2 else 1
        shares.append(largest * np.linalg.norm(updates[name]) / size)
    assert float(largest_share(updates, before)) == pytest.approx(max(shares), rel=1e-4)


@pytest.mark.parametrize("size", [1e-24, 1e-10, 1.0, 1e10, 1e20, 1e37])
def test_a_relative_update_is_of_any_size(size):
    """Squares of the smallest and of the largest of them are no float32."""
    before, after = ({"w": np.float32(factor * size) * normal(0, 16, 16)} for factor in (1.0, 1.5))
    norm = signals.update_norm()
    found = norm.compare(norm.read({}, before), norm.read({}, after))
    np.testing.assert_allclose(found, 0.5, rtol=1e-4)
    assert distance(before, after) == pytest.approx(by_the_formula(before, after), rel=1e-4)
    for lost in (np.nan, np.inf):
        worse = {"w": changed(after["w"], (0, 0), lost)}
        assert distance(before, worse) == np.inf
        assert not np.isfinite(norm.compare(norm.read({}, before), norm.read({}, worse)))


def test_a_motion_from_or_to_the_largest_numbers_is_finite():
    norm = signals.update_norm()
    small, large = (size * changed(normal(0, 16, 16), (0, 0), 0) for size in np.float32([1, 1e30]))
    found = norm.compare(norm.read({}, {"w": large}), norm.read({}, {"w": small}))
    np.testing.assert_allclose(found, 1, rtol=1e-5)
    expected = by_the_formula({"w": large}, {"w": small})
    assert distance({"w": large}, {"w": small}) == pytest.approx(expected, rel=1e-4)
    assert 1e28 < norm.compare(norm.read({}, {"w": small}), norm.read({}, {"w": large})) < np.inf
    assert 1e28 < distance({"w": small}, {"w": large}) < np.inf


def test_the_update_norm_is_that_of_all_entries_together():
    signal = signals.update_norm()
    before = {"w": normal(0, 30, 40), "b": normal(1, 50, fan_in=1)}
    after = {"w": before["w"] + 0.1 * normal(2, 30, 40), "b": before["b"] + 0.1}
    flat, moved = (np.concatenate([np.ravel(tree[name]) for name in "wb"]) for tree in (before, after))
    found = signal.compare(signal.read({}, before), signal.read({}, after))
    np.testing.assert_allclose(found, np.linalg.norm(moved - flat) / np.linalg.norm(flat), rtol=1e-5)
    nothing = {name: 0 * entries for name, entries in before.items()}
    found = signal.compare(signal.read({}, nothing), signal.read({}, after))
    np.testing.assert_allclose(found, np.linalg.norm(moved), rtol=1e-5)


@pytest.mark.parametrize("signal", [signals.update_norm(), signals.relative_update()])
def test_they_read_parameters_only(signal):
    assert signal.reads_params
    assert not signal.reads_activations


def test_frozen_matrices_are_left_out():
    trained = {"w": normal(0, 64, 64)}
    frozen = {"frozen": normal(1, 512, 512), "also": normal(2, 512, 64)}
    after = {"w": trained["w"] * 1.05}
    assert distance(trained | frozen, after | frozen) == pytest.approx(distance(trained, after))


@pytest.mark.parametrize(("share", "counts"), [(1 / 700, True), (1 / 1400, False)])
def test_a_matrix_that_moves_a_thousandth_of_the_fastest_is_frozen(share, counts):
    before = {"fast": normal(0, 16, 16), "slow": normal(0, 16, 16)}
    after = {"fast": 1.1 * before["fast"], "slow": (1 + 0.1 * share) * before["slow"]}
    fast = distance({"w": before["fast"]}, {"w": after["fast"]})
    assert distance(before, after) == pytest.approx(fast / math.sqrt(30) if counts else fast, rel=1e-3)


def test_of_a_pair_of_which_one_hardly_moves_the_other_is_heard():
    """LoRA's A does not move while its B is zero."""
    before = {"a": normal(0, 256, 8), "b": jnp.zeros((8, 256))}
    after = {"a": before["a"] * (1 + 2e-5), "b": before["b"] + rank_one(1, 8, 256, 0.1)}
    heard = distance({"b": before["b"]}, {"b": after["b"]})
    assert heard / 6 < distance(before, after) <= heard


def test_an_embedding_of_which_few_rows_moved_does_not_hide_the_rest():
    before = {"tokens": normal(0, 1000, 64, fan_in=1), "w": normal(1, 64, 64), "v": normal(2, 64, 256)}
    tokens = changed(before["tokens"], slice(7), before["tokens"][:7] + 0.1)
    after = {"tokens": tokens, "w": before["w"] * 1.1, "v": before["v"] * 1.1}
    rest = distance({k: before[k] for k in "wv"}, {k: after[k] for k in "wv"})
    assert rest / 4 < distance(before, after) <= rest


def test_what_is_not_finite_is_seen():
    before = {"w": normal(0, 8, 8), "v": normal(1, 8, 8)}
    for value in (jnp.nan, jnp.inf):
        assert distance(before, before | {"v": changed(before["v"], (0, 0), value)}) == np.inf


@pytest.mark.parametrize("params", [{}, {"steps": jnp.zeros((), jnp.int32)}, {"empty": jnp.zeros((0, 3))}])
def test_trees_without_a_parameter_that_trains_do_not_move(params):
    assert distance(params, params) == 0


def test_complex_and_narrow_types():
    before = normal(0, 32, 32)
    wanted = distance({"w": before}, {"w": before * 1.25})
    turned = before * np.exp(np.complex64(1j * 0.3))
    assert distance({"w": turned}, {"w": turned * 1.25}) == pytest.approx(wanted, rel=0.05)
    # Against the size that it would have, each entry counts once, of whatever type.
    nothing = np.zeros_like(before)
    assert distance({"w": nothing + 0j}, {"w": 0.01 * turned}) == pytest.approx(
        distance({"w": nothing}, {"w": 0.01 * before})
    )
    narrow = before.astype(jnp.bfloat16)
    assert distance({"w": narrow}, {"w": narrow * 1.25}) == pytest.approx(wanted, rel=0.05)


def test_no_copy_of_the_parameters_is_kept():
    reading = jax.eval_shape(lambda p: SIGNAL.read({}, p), {"w": jnp.zeros((4096, 1024))})
    assert sum(x.size for x in jax.tree.leaves(reading)) <= 1024 + 2


def test_an_odd_stride_visits_all_columns():
    before = normal(0, 512, 512)
    after = changed(before, np.s_[:, 1], 3 * before[:, 1])  # one column of a width that is a power of two
    assert 0.2 < distance({"w": before}, {"w": after}) / (math.sqrt(11.3) * 2 / math.sqrt(512)) < 5


def test_set_point():
    assert signals.relative_update(set_point=0.5).set_point == 0.5
    with pytest.raises(ValueError, match="set_point must be positive"):
        signals.relative_update(set_point=0.0)


# ------------------------------------------------------------------------------------------------------------
# The bound on one step
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [8, 64, 512])
def test_the_largest_share_is_that_of_the_largest_singular_value(width):
    params = {"w": 2 * normal(0, width, width), "v": normal(1, width, width), "b": jnp.zeros(width)}
    updates = {"w": rank_one(2, width, width, 0.1 * 4.0), "v": params["v"] * 1e-3, "b": jnp.full(width, 0.05)}
    assert float(largest_share(updates, params)) == pytest.approx(0.1, rel=0.15)


def test_a_share_is_of_updates_with_the_shapes_of_the_parameters():
    with pytest.raises(
        ValueError, match=r"^updates must be arrays with the shapes of params, got .* at updat"
    ):
        largest_share({"w": jnp.ones((2, 3))}, {"w": jnp.ones((3, 2))})


def test_a_matrix_of_zeros_has_a_finite_share():
    share = largest_share({"w": jnp.full((64, 10), 1e-3)}, {"w": jnp.zeros((64, 10))})
    assert 0 < float(share) < 0.1


def test_a_mask_of_minus_infinities_counts_by_the_size_it_would_have():
    updates = {"w": jnp.full((4, 6), 0.1)}
    masked, zeros = ({"w": jnp.full((4, 6), value)} for value in (-jnp.inf, 0.0))
    assert float(largest_share(updates, masked)) == float(largest_share(updates, zeros)) > 0


def test_vectors_count_by_their_norm_beside_matrices_too_and_no_parameters_have_no_share():
    params = {"gain": jnp.full(3, 2.0), "bias": jnp.zeros(6), "temperature": jnp.float32(0.5)}
    for matrices in ({}, {"w": normal(0, 8, 8)}):
        still = jax.tree.map(jnp.zeros_like, matrices)
        for moved, share in ((("gain", 0.2), 0.1), (("bias", 0.3), 0.3), (("temperature", 0.2), 0.2)):
            updates = {name: jnp.zeros_like(x) for name, x in params.items()}
            updates[moved[0]] += moved[1]
            assert float(largest_share(updates | still, params | matrices)) == pytest.approx(share)
    assert float(largest_share({}, {})) == 0
    assert float(largest_share({"n": jnp.int32(1)}, {"n": jnp.int32(1)})) == 0


def test_what_cannot_be_matched_counts_for_nothing_where_an_optimizer_asks():
    params = {"w": normal(0, 4, 4), "activation": jnp.tanh, "v": normal(1, 4, 4)}
    updates = {"w": 0.1 * params["w"], "activation": None, "v": None}
    assert 0 < float(largest_share(updates, params)) == float(share_if_alike(updates, params))
    assert float(share_if_alike({**updates, "v": jnp.ones(3)}, params)) == float(
        share_if_alike(updates, params)
    )
    assert share_if_alike(updates, {"slow": params, "fast": params}) is None


def test_a_share_is_not_finite_where_an_update_is_not():
    params = {"w": normal(0, 4, 4), "v": normal(1, 4, 4)}
    assert not np.isfinite(largest_share({**params, "v": changed(params["v"], (0, 0), np.nan)}, params))


@pytest.mark.parametrize(
    "signal", [signals.relative_update(), signals.update_norm()], ids=["relative", "norm"]
)
def test_a_mask_of_minus_infinity_does_not_move(signal):
    rng = np.random.default_rng(0)
    before, after = ({"w": rng.normal(size=(12, 8)).astype(np.float32)} for _ in range(2))
    mask = {"mask": np.where(np.tril(np.ones((8, 8))) > 0, 0, -np.inf).astype(np.float32)}
    read = functools.partial(signal.read, {})
    alone = signal.compare(read(before), read(after))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(read(before | mask)))
    np.testing.assert_allclose(signal.compare(read(before | mask), read(after | mask)), alone, rtol=1e-6)
    # What becomes infinite has overflowed, and NaN is none.
    for value in (np.inf, -np.inf, np.nan):
        lost = {"w": after["w"].copy()}
        lost["w"][0, 0] = value
        assert not np.isfinite(signal.compare(read(before | mask), read(lost | mask)))


def test_a_network_with_a_mask_among_its_parameters_is_calibrated():
    x = jax.random.normal(jax.random.key(0), (64, 4))
    params = {"w": jax.random.normal(jax.random.key(1), (4, 16)) / 2, "v": jnp.ones(16) / 16}
    mask = {"mask": jnp.where(jnp.tril(jnp.ones((8, 8))) > 0, 0.0, -jnp.inf)}

    def anchor(params):
        tx = cgalr_jax.cgalr(1e-3, {"hidden": 16}, steps=200)

        def loss(params):
            return jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"] - jnp.sin(x.sum(1))) ** 2)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(
                jax.grad(loss)(params), state, params, probe=lambda params: {"hidden": x @ params["w"]}
            )
            return (optax.apply_updates(params, updates), state), None

        (_, state), _ = jax.lax.scan(step, (params, tx.init(params)), length=200)
        return cgalr_jax.metrics(state)["cgalr/anchor"]

    np.testing.assert_allclose(jax.jit(anchor)(params | mask), jax.jit(anchor)(params), rtol=0.01)
