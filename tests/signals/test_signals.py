"""Signals: what they read, how layers are reduced, what a dead or a broken layer does."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from cgalr_jax import signals, topology
from cgalr_jax.layers import Layers

ALL = {
    "births pooled": signals.births(),
    "births min": signals.births("min"),
    "births median": signals.births("median"),
    "deaths pooled": signals.deaths(),
    "deaths min": signals.deaths("min"),
    "barcode pooled": signals.barcode(),
    "barcode median": signals.barcode("median"),
    "frobenius pooled": signals.frobenius("pooled"),
    "frobenius min": signals.frobenius(),
    "frobenius median": signals.frobenius("median"),
    "hybrid": signals.hybrid(),
}


def layers(seed, *, count=3, samples=32, units=5):
    keys = jax.random.split(jax.random.key(seed), count)
    return {f"layer{i}": jax.random.normal(key, (samples, units)) for i, key in enumerate(keys)}


def read(signal, activations, params=None):
    params = {"w": jnp.ones(3)} if params is None else params
    return signal.read(Layers(activations), params)


@pytest.mark.parametrize("name", ALL)
class TestAll:
    def test_no_motion_is_zero(self, name):
        signal = ALL[name]
        assert signal.compare(read(signal, layers(0)), read(signal, layers(0))) == 0

    def test_motion_is_positive(self, name):
        signal = ALL[name]
        before, after = (
            read(signal, layers(0), {"w": jnp.ones(3)}),
            read(signal, layers(1), {"w": jnp.zeros(3)}),
        )
        assert signal.compare(before, after) > 0

    def test_a_non_finite_activation_is_not_hidden(self, name):
        signal = ALL[name]
        broken = layers(1)
        broken["layer1"] = broken["layer1"].at[3, 2].set(jnp.inf)
        assert not jnp.isfinite(signal.compare(read(signal, layers(0)), read(signal, broken)))

    def test_layers_may_be_anything_that_is_an_array(self, name):
        arrays = layers(0) | {"half": layers(1)["layer0"].astype(jnp.float16)}
        lists = {key: np.asarray(x).tolist() for key, x in arrays.items()}
        given, same = (ALL[name].read(each, {"w": jnp.ones(3)}) for each in (lists, Layers(arrays)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), given, same)
        with pytest.raises(ValueError, match="must be real, got complex64"):
            read(ALL[name], arrays | {"complex": arrays["layer0"] + 1j})

    @pytest.mark.parametrize("size", [0.0, 1e-6, 5e-4, 5e-3, 1.0])
    def test_a_layer_has_to_vary_beside_the_others(self, name, size):
        def distance(size):
            before, after = (layers(seed) | {"small": size * layers(seed + 5)["layer0"]} for seed in range(2))
            return ALL[name].compare(read(ALL[name], before), read(ALL[name], after))

        expected = distance(0.0 if size < 1e-3 else 1.0)
        np.testing.assert_allclose(distance(size), expected, rtol=1e-4)
        assert name.startswith("hybrid") or "pooled" not in name or distance(0.0) != distance(1.0)

    def test_a_small_layer_that_overflowed_is_seen(self, name):
        broken = layers(0) | {"small": 1e-6 * layers(5)["layer0"].at[0, 0].set(jnp.nan)}
        reading = jax.tree.leaves(read(ALL[name], broken))
        assert not all(jnp.isfinite(leaf).all() for leaf in reading)

    def test_a_dead_network_has_no_distance(self, name):
        signal = ALL[name]
        dead = jax.tree.map(jnp.zeros_like, layers(0))
        assert not jnp.isfinite(signal.compare(read(signal, dead), read(signal, dead)))


def root_mean_square(before, after):
    return np.sqrt(np.mean((np.asarray(before) - np.asarray(after)) ** 2))


def both(before, after):
    return np.sqrt(np.mean([root_mean_square(*pair) ** 2 for pair in zip(before, after, strict=True)]))


def upper(connectome):
    return connectome[np.triu_indices(len(connectome), 1)]


BY_FORMULA = {  # what is kept of a connectome, and the distance of two of them
    "births": (oracles.births, root_mean_square),
    "deaths": (lambda c: oracles.barcode(c)[1], root_mean_square),
    "barcode": (oracles.barcode, both),
    "frobenius": (upper, root_mean_square),
}
OVER = {"min": np.min, "median": np.median, "max": np.max}


@pytest.mark.parametrize("over", ["pooled", *OVER])
@pytest.mark.parametrize("name", BY_FORMULA)
def test_the_distance_is_that_of_the_formula(name, over):
    keep, distance = BY_FORMULA[name]
    signal = getattr(signals, name)(over)
    sides = [
        {f"layer{k}": np.asarray(layers(10 * seed + k, count=1, units=5 + k)["layer0"]) for k in range(3)}
        for seed in range(2)
    ]
    found = signal.compare(*(read(signal, side) for side in sides))
    if over == "pooled":
        kept = [keep(oracles.connectome(np.concatenate(list(side.values()), axis=1))) for side in sides]
        expected = distance(*kept)
    else:
        pairs = zip(*(side.values() for side in sides), strict=True)
        expected = OVER[over](
            [distance(*(keep(oracles.connectome(units)) for units in pair)) for pair in pairs]
        )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["deaths", "barcode"])
def test_the_published_distance_is_a_sum(name):
    signal = getattr(signals, name)("pooled", normalise=False)
    sides = [layers(seed) for seed in range(2)]
    kept = [oracles.barcode(oracles.connectome(np.concatenate(list(x.values()), axis=1))) for x in sides]
    squares = [np.sum((before - after) ** 2) for before, after in zip(*kept, strict=True)]
    expected = np.sqrt(squares[1] if name == "deaths" else sum(squares))
    np.testing.assert_allclose(signal.compare(*(read(signal, x) for x in sides)), expected, rtol=1e-4)
    assert signal.set_point == 1


def test_set_points_are_those_of_the_docstrings():
    found = {name: getattr(signals, name)().set_point for name in BY_FORMULA}
    assert found == {"births": 0.22, "deaths": 0.09, "barcode": 0.16, "frobenius": 0.4}
    assert signals.births("min").set_point == signals.births("max").set_point == 0.17
    sampled = {
        name: getattr(signals, name)("max", sample=16).set_point for name in ("births", "deaths", "barcode")
    }
    assert sampled == {"births": 0.3, "deaths": 0.3, "barcode": 0.35}
    assert (signals.update_norm().set_point, signals.relative_update().set_point) == (0.36, 0.5)


@pytest.mark.parametrize("make", [signals.births, signals.deaths, signals.barcode, signals.frobenius])
def test_minimum_and_median_over_the_layers(make):
    before, after = layers(0), layers(1)
    apart = [
        float(make("min").compare(read(make("min"), {k: before[k]}), read(make("min"), {k: after[k]})))
        for k in before
    ]
    for over, reduce in (("min", np.min), ("median", np.median)):
        signal = make(over)
        np.testing.assert_allclose(
            signal.compare(read(signal, before), read(signal, after)), reduce(apart), rtol=1e-6
        )


def test_a_dead_layer_is_left_out_of_the_minimum():
    signal = signals.frobenius()
    before, after = layers(0), layers(1)
    dead = {"layer9": jnp.ones((32, 5))}
    np.testing.assert_array_equal(
        signal.compare(read(signal, before | dead), read(signal, after | dead)),
        signal.compare(read(signal, before), read(signal, after)),
    )


@pytest.mark.parametrize("over", ["min", "median"])
@pytest.mark.parametrize("make", [signals.births, signals.deaths, signals.barcode, signals.frobenius])
def test_a_frozen_layer_is_left_out(make, over):
    signal = make(over)
    before, after = layers(0), layers(1)
    frozen = layers(2, count=5)
    frozen = {f"frozen{name}": units for name, units in frozen.items()}
    np.testing.assert_array_equal(
        signal.compare(read(signal, before | frozen), read(signal, after | frozen)),
        signal.compare(read(signal, before), read(signal, after)),
    )


@pytest.mark.parametrize(("share", "counts"), [(1 / 700, True), (1 / 1400, False)])
def test_a_layer_that_moves_a_thousandth_of_the_others_is_frozen(share, counts):
    signal = signals.frobenius()
    before = {"slow": jnp.full((5, 5), 0.5), "fast": jnp.full((5, 5), 0.5)}
    after = {"slow": before["slow"] + 0.2 * share, "fast": before["fast"] + 0.2}
    slowest, rest = (signal.compare({k: before[k]}, {k: after[k]}) for k in ("slow", "fast"))
    assert signal.compare(before, after) == (slowest if counts else rest)


@pytest.mark.parametrize("over", ["min", "median", "max"])
def test_layers_are_frozen_beside_living_ones_only(over):
    """However little the others move, a dead layer is no faster."""
    signal = signals.frobenius(over)
    before = {name: jnp.full((5, 5), 0.5) for name in ("slow", "fast")} | {"dead": jnp.zeros((5, 5))}
    after = before | {"slow": before["slow"] + 2e-4, "fast": before["fast"] + 5e-4}
    expected = signal.compare(*({k: x[k] for k in ("slow", "fast")} for x in (before, after)))
    assert signal.compare(before, after) == expected < jnp.inf


def test_positions_count_as_samples_layer_by_layer_and_are_averaged_when_pooled():
    images = jax.random.normal(jax.random.key(0), (8, 3, 3, 4))
    by_layer = read(signals.frobenius(), {"conv": images})["conv"]
    np.testing.assert_allclose(by_layer, topology.functional_connectome(images.reshape(-1, 4)), atol=1e-6)
    pooled = read(signals.frobenius("pooled"), {"conv": images, "dense": jnp.eye(8)})["pooled"]
    assert pooled.shape == (12, 12)
    np.testing.assert_allclose(pooled[:4, :4], topology.functional_connectome(images.mean((1, 2))), atol=1e-6)


def test_pooled_layers_must_have_the_same_samples():
    with pytest.raises(ValueError, match="same number of samples"):
        read(signals.births(), {"a": jnp.ones((4, 3)), "b": jnp.ones((5, 3))})


def test_update_norm_is_relative():
    signal = signals.update_norm()
    before = {"w": jnp.full((3, 4), 2.0), "b": jnp.zeros(4), "steps": jnp.int32(3)}
    after = before | {"w": jnp.full((3, 4), 2.2)}
    np.testing.assert_allclose(
        signal.compare(read(signal, {}, before), read(signal, {}, after)), 0.1, rtol=1e-5
    )


def test_update_norm_looks_at_a_sub_sample_of_every_column():
    # 64 columns: a stride of 16 or 32 would see two or four of them.
    params = {"w": jnp.broadcast_to(jnp.arange(64.0), (4096, 64))}
    entries = read(signals.update_norm(), {}, params)
    assert 2000 < entries.size <= 4096
    assert len(np.unique(entries)) == 64


def test_update_norm_of_zeros_is_finite():
    signal = signals.update_norm()
    assert signal.compare(jnp.zeros(3), jnp.zeros(3)) == 0


def test_hybrid_weighs_the_two_in_their_set_points():
    first, second = signals.frobenius(set_point=0.1), signals.update_norm(set_point=0.2)
    signal = signals.hybrid(first, second)
    before, after = layers(0), layers(1)
    old, new = {"w": jnp.ones(4)}, {"w": jnp.full(4, 1.3)}
    motion = first.compare(read(first, before), read(first, after)) / 0.1
    change = second.compare(read(second, {}, old), read(second, {}, new)) / 0.2
    expected = np.exp(0.3 * np.log(motion) + 0.7 * np.log(change))
    np.testing.assert_allclose(
        signal.compare(read(signal, before, old), read(signal, after, new)), expected, rtol=1e-5
    )
    assert signal.set_point == 1


@pytest.mark.parametrize("still", [0, 1])
def test_where_one_half_of_the_hybrid_stands_still_the_other_counts_half(still):
    signal = signals.hybrid()
    moving = 1 - still
    before, after = (
        read(signal, layers(0), {"w": jnp.ones((4, 4))}),
        read(signal, layers(1), {"w": jnp.full((4, 4), 1.3)}),
    )
    after = tuple(
        new if half == moving else old for half, (old, new) in enumerate(zip(before, after, strict=True))
    )
    half = (signals.births("max", sample=16, set_point=0.75), signals.relative_update())[moving]
    expected = half.compare(before[moving], after[moving]) / half.set_point / 2
    np.testing.assert_allclose(signal.compare(before, after), expected, rtol=1e-5)
    assert after[still] is before[still]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_weights_are_those_of_a_geometric_mean_and_half_of_the_larger_at_least(share):
    motion, change = (x.ravel() for x in jnp.meshgrid(*2 * [jnp.array([0.0, 1e-30, 0.01, 0.5, 1.0, 3.0])]))
    weighed = signals.weigh(motion, change, share)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = (1 - share) * np.log(np.float64(motion)) + share * np.log(np.float64(change))
    mean = np.exp(logarithm)
    if share in (0, 1):  # 0 log 0 is not a number
        mean = change if share else motion
    np.testing.assert_allclose(weighed, np.maximum(mean, np.maximum(motion, change) / 2), rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("broken", [jnp.nan, jnp.inf, -jnp.inf, -1.0])
def test_what_is_no_distance_is_infinite_when_weighed(broken, share):
    for pair in ((broken, 1.0), (1.0, broken), (broken, 0.0), (0.0, broken), (broken, broken)):
        assert jax.jit(signals.weigh, static_argnums=2)(*map(jnp.float32, pair), share) == jnp.inf


def test_set_point_is_proportional_to_every_up_to_ten_steps_and_stays():
    signal = signals.frobenius(set_point=0.05)
    assert [signal.set_point_at(every) for every in (1, 5, 10, 20, 80)] == pytest.approx(
        [0.005, 0.025, 0.05, 0.05, 0.05]
    )
    steps = jnp.array([1, 5, 10, 20])
    np.testing.assert_allclose(signal.set_point_at(steps), [0.005, 0.025, 0.05, 0.05])
    np.testing.assert_array_equal(jax.jit(signal.set_point_at)(steps), signal.set_point_at(steps))


@pytest.mark.parametrize("make", [signals.births, signals.frobenius])
def test_refuses(make):
    with pytest.raises(ValueError, match="^over must be 'min', 'median', 'max' or 'pooled', got 'largest'"):
        make("largest")
    with pytest.raises(ValueError, match="^set_point must be positive and finite, got 0"):
        make(set_point=0)


def test_layers_of_one_shape_are_summarised_by_one_program_and_kept_connectomes_by_none():
    def loops(signal):
        traced = jax.make_jaxpr(lambda layers: read(signal, layers))(layers(0))
        return [str(equation.primitive) for equation in traced.jaxpr.eqns].count("scan")

    assert loops(signals.births("min")) == 1
    assert loops(signals.frobenius()) == 0


def test_a_layer_that_was_dead_at_one_of_the_two_readings_is_left_out():
    signal = signals.births("max")
    before, after = layers(0), layers(1)
    expected = signal.compare(*(read(signal, {"layer0": x["layer0"]}) for x in (before, after)))
    dead = {name: jnp.zeros_like(x) for name, x in before.items() if name != "layer0"}
    for pair in ((before | dead, after), (before, after | dead)):
        np.testing.assert_allclose(signal.compare(*(read(signal, x) for x in pair)), expected)


def test_a_layer_without_deaths_is_not_a_dead_layer():
    signal = signals.barcode("max")
    before, after = (read(signal, layers(seed, count=1)) for seed in range(2))
    after["layer0"] = after["layer0"]._replace(deaths=jnp.zeros_like(after["layer0"].deaths))
    assert jnp.isfinite(signal.compare(before, after))


def test_two_units_are_enough_to_choose():
    signal = signals.from_connectomes(
        None, topology.frobenius_distance, "min", None, 1.0, lambda width: np.array([0, width - 1])
    )
    assert read(signal, layers(0))["layer0"].shape == (2, 2)


@pytest.mark.parametrize("chosen", [[-1, 0], [0, 5]])
def test_only_units_that_are_there_are_chosen(chosen):
    signal = signals.from_connectomes(
        None, topology.frobenius_distance, "min", None, 1.0, lambda width: np.array(chosen)
    )
    with pytest.raises(ValueError, match=r"^choose must return indices in \[0, 5\) for 5 units"):
        read(signal, layers(0))


@pytest.mark.parametrize("set_point", [0.0, np.nan])
def test_a_half_of_the_hybrid_without_a_set_point_is_refused(set_point):
    with pytest.raises(ValueError, match=r"^connectome\.set_point must be positive and finite, got"):
        signals.hybrid(signals.frobenius()._replace(set_point=set_point))


@pytest.mark.parametrize(
    "swapped",
    [
        {"connectome": signals.update_norm()},
        {"update": signals.frobenius()},
        {"connectome": signals.update_norm(), "update": signals.frobenius()},
    ],
)
def test_each_half_of_the_hybrid_has_its_place(swapped):
    with pytest.raises(ValueError, match=r"^connectome must be a signal that reads activations, and update"):
        signals.hybrid(**swapped)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_weight_is_a_share(share):
    with pytest.raises(ValueError, match=r"^share must be in \[0, 1\], got"):
        signals.weigh(jnp.ones(()), jnp.ones(()), share)


def test_how_much_a_layer_varies_is_that_of_all_devices():
    signal = signals.frobenius("median")
    # One device sees the first layer vary, the other the second.
    x, far = layers(0), jnp.concatenate([jnp.zeros((16, 1)), jnp.ones((16, 1))])
    x = {"first": (1 - far) * x["layer0"], "second": far * x["layer1"], "third": 1e-4 * x["layer2"]}

    def split(activations):
        return signal.read(Layers(activations, "devices"), None)

    halves = jax.tree.map(lambda x: x.reshape(2, 16, -1), x)
    shared = jax.vmap(split, axis_name="devices", out_axes=None)(halves)
    whole = read(signal, x)
    for name, connectome in whole.items():
        np.testing.assert_allclose(shared[name], connectome, atol=1e-5)
    assert not whole["third"].any()
    assert whole["first"].any()
    assert whole["second"].any()
