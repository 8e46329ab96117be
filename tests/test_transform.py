"""The transformation: three ways to measure, what is stored, what is skipped, what it says to wrong calls."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cgalr_jax
from cgalr_jax import controllers, layers, signals, topology
from cgalr_jax.instrument import Instrument, measure

X = jax.random.normal(jax.random.key(0), (256, 6))
Y = jnp.sin(X @ jnp.linspace(-2, 2, 6))
PARAMS = {
    "w": jax.random.normal(jax.random.key(1), (6, 16)) / 6**0.5,
    "b": jnp.zeros(16),
    "v": jax.random.normal(jax.random.key(2), (16,)) / 4,
}
EXAMPLE = {"hidden": 16}


def hidden(params, x):
    return {"hidden": x @ params["w"] + params["b"]}


def loss(params, x, y):
    return jnp.mean((jnp.tanh(hidden(params, x)["hidden"]) @ params["v"] - y) ** 2)


def probe(params):
    return hidden(params, X[:64])


def fixed(value):
    """A controller that always wants the same scale, and keeps what it was told."""

    def init():
        return jnp.float32(value), jnp.zeros((), jnp.float32)

    def update(measurement, state):
        return jnp.float32(value), measurement.distance

    return controllers.Controller(init, update)


def train(tx, steps, *, extra, params=PARAMS, objective=loss, seed=0):
    """Trains on mini-batches of 32; `extra(x)` are the extra arguments. Returns parameters and traces."""
    batches = np.stack(
        [np.random.default_rng([seed, i]).choice(256, 32, replace=False) for i in range(steps)]
    )

    def step(carry, batch):
        params, state = carry
        x, y = X[batch], Y[batch]
        value, grads = jax.value_and_grad(objective)(params, x, y)
        updates, state = tx.update(grads, state, params, **extra(x))
        carry = optax.apply_updates(params, updates), state
        return carry, cgalr_jax.metrics(state) | {"loss": value}

    (params, _), trace = jax.lax.scan(step, (params, tx.init(params)), batches)
    return params, trace


def run(tx, steps, **kwargs):
    """`train`, compiled."""
    return jax.device_get(jax.jit(lambda: train(tx, steps, **kwargs))())


class TestMainJob:
    """The scale must rise from a base rate 100 times too small and fall from one 30 times too large."""

    RATE = 0.1  # a good one for this task: see `test_the_reference_rate_is_good`

    @classmethod
    def final(cls, *rates, way="probe", controller=cgalr_jax.calibrated, **kwargs):
        """The loss and the trace of a run from each of the rates, which are compiled together."""
        stored, extra = {
            "probe": ({}, lambda x: {"probe": probe}),
            "paired": ({"samples": X[:32]}, lambda x: {"probe": hidden, "samples": x}),
        }[way]

        @jax.jit
        def end(rate):
            schedule = optax.cosine_decay_schedule(rate, 600)
            scaled = cgalr_jax.scale_by_connectome(
                EXAMPLE, controller=controller(schedule), **stored, **kwargs
            )
            tx = optax.chain(optax.sgd(schedule, momentum=0.9), scaled)
            params, trace = train(tx, 600, extra=extra)
            return loss(params, X, Y), trace

        return [jax.device_get(end(rate)) for rate in rates]

    @classmethod
    @functools.cache
    def plain(cls):
        """The losses of SGD by itself: from the good rate, from too small a rate, from too large."""
        rates = cls.RATE, cls.RATE / 100, cls.RATE * 30
        runs = cls.final(*rates, controller=lambda schedule: fixed(1.0), max_share=None)
        return [end for end, _ in runs]

    def test_the_reference_rate_is_good(self):
        good, low, high = self.plain()
        assert good < 0.25 * low
        assert not good > 0.25 * high  # which may be NaN

    # The set-point of Frobenius was found on slow ramps: it is told how long the run is, and ramps slower.
    HYBRID, FROBENIUS = (signals.hybrid(), None), (signals.frobenius(), 600)

    @pytest.mark.parametrize(
        ("chosen", "steps", "way"),
        [
            pytest.param(*HYBRID, "probe", id="hybrid-probe"),
            pytest.param(*FROBENIUS, "paired", id="frobenius-paired", marks=pytest.mark.slow),
            pytest.param(*HYBRID, "paired", id="hybrid-paired", marks=pytest.mark.slow),
            pytest.param(*FROBENIUS, "probe", id="frobenius-probe", marks=pytest.mark.slow),
        ],
    )
    def test_rises_and_falls(self, chosen, steps, way):
        good = self.plain()[0]
        calibrated = functools.partial(cgalr_jax.calibrated, steps=steps)
        (low, rising), (high, falling) = self.final(
            self.RATE / 100, self.RATE * 30, controller=calibrated, signal=chosen, way=way
        )
        assert rising["cgalr/anchor"][-1] > 30
        assert falling["cgalr/anchor"][-1] < 0.3
        ends = controllers.REACHED, controllers.BY_BOUND  # of a squared loss without clipping
        assert rising["cgalr/ended"][-1] in ends
        assert falling["cgalr/ended"][-1] in ends
        # Where every step counts, rates up to three times the best one.
        assert max(low, high) < 3 * good

    def test_births_fall(self):
        # The births of one layer of 16 units are noisy.
        ((final, trace),) = self.final(self.RATE * 30, signal=signals.births(), way="paired")
        assert trace["cgalr/anchor"][-1] < 0.15
        assert final < 4 * self.plain()[0]

    def test_the_gate_of_the_paper_runs_inside_its_envelope(self):
        bounds = cgalr_jax.robbins_monro_bounds(0.1, 1.0, tau=100)
        controller = controllers.envelope(cgalr_jax.hysteresis_gate(), bounds)
        ((final, trace),) = self.final(self.RATE, controller=lambda _: controller, signal=signals.births())
        low, high = bounds(jnp.arange(600) // 10 * 10)  # each measurement sets them
        assert np.all(trace["cgalr/scale"] >= np.asarray(low) * (1 - 1e-6))
        assert np.all(trace["cgalr/scale"] <= np.asarray(high) * (1 + 1e-6))
        assert len(np.unique(trace["cgalr/phase"])) > 1  # it does switch
        assert final < 0.2


# Each of what is frozen, each way and each schedule; what is left of the product is slow.
QUICK = {
    ("all that is seen", "probe", "cosine"),
    ("most parameters", "probe", "none"),
}


class TestFrozen:
    """What never moves must not make the rest run away: all that the probe sees, a layer, most parameters."""

    STEM = jax.random.normal(jax.random.key(3), (6, 16))

    @pytest.mark.parametrize(
        ("frozen", "way", "schedule"),
        [
            pytest.param(
                frozen,
                way,
                schedule,
                id=f"{frozen}-{way}-{name}",
                marks=() if (frozen, way, name) in QUICK else pytest.mark.slow,
            )
            for frozen in ("all that is seen", "a layer", "most parameters")
            for way in ("probe", "paired")
            for name, schedule in (("cosine", optax.cosine_decay_schedule(0.1, 600)), ("none", 0.1))
        ],
    )
    def test_learns(self, frozen, way, schedule):
        def layers(params, x):
            seen = {} if frozen == "all that is seen" else hidden(params, x)
            return seen if frozen == "most parameters" else seen | {"stem": x @ self.STEM}

        params = PARAMS | ({"embedding": jnp.ones((512, 32))} if frozen == "most parameters" else {})
        example = jax.eval_shape(layers, params, X[:32])
        stored = {"samples": X[:32]} if way == "paired" else {}
        extra = {
            "probe": lambda x: {"probe": lambda params: layers(params, X[:64])},
            "paired": lambda x: {"probe": layers, "samples": x},
        }[way]
        after, trace = run(cgalr_jax.cgalr(schedule, example, **stored), 600, extra=extra, params=params)
        untrained, trained = float(loss(params, X, Y)), float(loss(after, X, Y))
        # A squared loss without clipping: without a schedule the rate stays near the largest that is stable.
        assert trained < (0.25 if callable(schedule) else 0.5) * untrained
        assert np.all(trace["cgalr/scale"] < 30)

    @pytest.mark.parametrize(
        "chosen", [signals.frobenius(), signals.update_norm()], ids=["frobenius", "update norm"]
    )
    def test_a_network_that_stands_still_gets_its_base_rate_at_most(self, chosen):
        still = optax.chain(
            cgalr_jax.scale_by_connectome(
                EXAMPLE, signal=chosen, controller=cgalr_jax.calibrated(optax.cosine_decay_schedule(0.1, 600))
            ),
            optax.set_to_zero(),
        )
        _, trace = run(still, 600, extra=lambda x: {"probe": probe})
        assert trace["cgalr/scale"].max() == 1

    def test_without_updates_nothing_is_measured(self):
        tx = optax.chain(optax.set_to_zero(), cgalr_jax.scale_by_connectome(EXAMPLE))
        _, trace = run(tx, 60, extra=lambda x: {"probe": probe})
        assert set(trace["cgalr/scale"]) == {np.float32(0.001)}
        assert trace["cgalr/measurements"][-1] == trace["cgalr/skipped"][-1] == 0


class TestFewUpdates:
    """`optax.MultiSteps` in front of the block: most of the updates that it sees are 0."""

    @staticmethod
    def accumulated(k, rate, **extra):
        schedule = optax.cosine_decay_schedule(rate, 1600)
        steps = optax.MultiSteps(optax.sgd(lambda update: schedule(update * k), momentum=0.9), k)
        block = cgalr_jax.scale_by_connectome(
            EXAMPLE, samples=X[:32], controller=cgalr_jax.calibrated(schedule, **extra)
        )
        return optax.chain(optax.GradientTransformationExtraArgs(steps.init, steps.update), block)

    @pytest.mark.parametrize("extra", [{}, {"steps": 1600}], ids=["", "steps"])
    def test_the_rate_that_is_found_does_not_depend_on_the_base_rate(self, extra):
        rates = []
        for rate in (0.1, 10.0):
            tx = self.accumulated(8, rate, **extra)
            after, trace = run(tx, 1600, extra=lambda x: {"probe": hidden, "samples": x})
            assert trace["cgalr/ended"][-1] != 0
            assert trace["cgalr/cut"][-1] < 20  # of 200 updates
            assert loss(after, X, Y) < 0.25 * loss(PARAMS, X, Y)
            rates.append(rate * trace["cgalr/anchor"][-1])
        assert 0.5 < rates[0] / rates[1] < 2

    def test_the_share_of_cut_steps_and_the_set_point_are_those_of_the_updates(self):
        def note(measurement, state):
            return jnp.float32(1), jnp.stack([measurement.distance, measurement.cut])

        controller = controllers.Controller(lambda: (jnp.float32(1), jnp.zeros(2)), note)
        signal = signals.update_norm()
        tx = cgalr_jax.scale_by_connectome(EXAMPLE, signal=signal, every=4, controller=controller)
        params, state = PARAMS, tx.init(PARAMS)
        for factor in (0.5, 0, 0, 1e-3, 0):
            updates, state = tx.update(jax.tree.map(lambda x, f=factor: f * x, PARAMS), state, params)
            params = optax.apply_updates(params, updates)
        assert state.cg_motion == pytest.approx(state.cg_distance / signal.set_point_at(2))
        np.testing.assert_allclose(state.cg_control.controller, [state.cg_motion, 0.5])


class TestLongRuns:
    """What has learnt its data stops moving: no set-point may ask for more, however rarely it is measured."""

    PARAMS = {
        "first": jax.random.normal(jax.random.key(4), (6, 32)) / 6**0.5,
        "second": jax.random.normal(jax.random.key(5), (32, 32)) / 32**0.5,
        "out": jax.random.normal(jax.random.key(6), (32,)) / 32**0.5,
    }

    @staticmethod
    def layers(params, x):
        first = x @ params["first"]
        return {"first": first, "second": jnp.tanh(first) @ params["second"]}

    @pytest.mark.parametrize(
        ("every", "schedule"),
        [
            pytest.param(every, schedule, id=f"{every}-{name}", marks=pytest.mark.slow)
            for every in (10, 20, 80)
            for name, schedule in (("cosine", optax.cosine_decay_schedule(0.1, 4000)), ("none", 0.1))
        ],
    )
    def test_learns(self, every, schedule):
        def objective(params, x, y):
            return jnp.mean((jnp.tanh(self.layers(params, x)["second"]) @ params["out"] - y) ** 2)

        # Clipped, as the README advises for a squared loss.
        tx = cgalr_jax.cgalr(schedule, {"first": 32, "second": 32}, every=every)
        after, _ = run(
            optax.chain(optax.clip_by_global_norm(1.0), tx),
            4000,
            extra=lambda x: {"probe": lambda params: self.layers(params, X[:64])},
            params=self.PARAMS,
            objective=objective,
        )
        assert objective(after, X, Y) < 0.02 * objective(self.PARAMS, X, Y)


class TestThreeWays:
    def test_a_probe_runs_on_measurement_steps_alone(self):
        calls = []

        def counting(params):
            jax.debug.callback(lambda: calls.append(1))
            return probe(params)

        tx = cgalr_jax.scale_by_connectome(
            EXAMPLE, every=5, controller=fixed(1.0), signal=signals.frobenius()
        )
        run(tx, 11, extra=lambda x: {"probe": counting})
        jax.effects_barrier()
        assert len(calls) == 3  # steps 0, 5 and 10

    def test_probe_and_given_agree(self):
        tx = cgalr_jax.scale_by_connectome(
            EXAMPLE, every=3, signal=signals.frobenius(), controller=fixed(1.0)
        )
        state = tx.init(PARAMS)
        moved = jax.tree.map(lambda p: p * 1.1 + 0.01, PARAMS)
        by_probe, given = state, state
        with_probe = jax.jit(functools.partial(tx.update, probe=probe))
        with_activations = jax.jit(lambda p, state: tx.update(p, state, p, activations=probe(p)))
        for params in (PARAMS, PARAMS, PARAMS, moved):
            _, by_probe = with_probe(params, by_probe, params)
            _, given = with_activations(params, given)
        assert by_probe.cg_distance > 0
        jax.tree.map(np.testing.assert_array_equal, by_probe, given)

    def test_paired_compares_the_same_samples(self):
        # The batches differ wildly, the parameters do not move: no distance. The next: they do.
        tx = cgalr_jax.scale_by_connectome(
            EXAMPLE, samples=X[:32], every=1, signal=signals.frobenius(), controller=fixed(1.0)
        )
        state = tx.init(PARAMS)
        update = jax.jit(functools.partial(tx.update, probe=hidden))
        for start in (0, 32, 64):
            _, state = update(PARAMS, state, PARAMS, samples=X[start : start + 32] * (start + 1))
        assert state.cg_measurements == 2
        assert state.cg_distance == 0
        np.testing.assert_array_equal(state.cg_samples, X[64:96] * 65)
        moved = PARAMS | {"w": PARAMS["w"][::-1]}
        _, state = update(moved, state, moved, samples=X[:32])
        connect = cgalr_jax.topology.functional_connectome
        expected = cgalr_jax.topology.frobenius_distance(
            connect(hidden(PARAMS, X[64:96] * 65)["hidden"]), connect(hidden(moved, X[64:96] * 65)["hidden"])
        )
        np.testing.assert_allclose(state.cg_distance, expected, rtol=1e-6)

    def test_a_longer_batch_is_cut(self):
        tx = cgalr_jax.scale_by_connectome(
            EXAMPLE, samples=X[:16], signal=signals.frobenius(), controller=fixed(1.0)
        )
        _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, probe=hidden, samples=X[:32])
        np.testing.assert_array_equal(state.cg_samples, X[:16])

    def test_the_update_norm_needs_nothing(self):
        tx = cgalr_jax.scale_by_connectome(
            EXAMPLE, every=1, signal=signals.update_norm(), controller=fixed(1.0)
        )
        state = tx.init(PARAMS)
        for factor in (1.0, 1.1):
            _, state = tx.update(PARAMS, state, jax.tree.map(lambda p, f=factor: p * f, PARAMS))
        np.testing.assert_allclose(state.cg_distance, 0.1, rtol=1e-4)

    BATCH = X[:32]
    WRONG = {
        "nothing": ({}, {}, "probe or activations must be passed"),
        "probe and activations": (
            {},
            {"probe": probe, "activations": probe(PARAMS)},
            "activations must be passed without probe and samples",
        ),
        "activations and samples": (
            {},
            {"activations": probe(PARAMS), "samples": BATCH},
            "activations must be passed without probe and samples",
        ),
        "samples in update alone": (
            {},
            {"probe": hidden, "samples": BATCH},
            "samples must be passed to both",
        ),
        "samples in the constructor alone": (
            {"samples": BATCH},
            {"probe": hidden},
            "samples must be passed to both",
        ),
    }

    @pytest.mark.parametrize("name", WRONG)
    def test_names_the_three_ways(self, name):
        arguments, extra, message = self.WRONG[name]
        tx = cgalr_jax.scale_by_connectome(EXAMPLE, **arguments)
        with pytest.raises(ValueError, match=message) as error:
            tx.update(PARAMS, tx.init(PARAMS), PARAMS, **extra)
        for way in ("paired:", "fixed probe:", "given:"):
            assert way in str(error.value)

    def test_names_the_usual_culprits(self):
        tx = cgalr_jax.scale_by_connectome(EXAMPLE)
        with pytest.raises(ValueError, match="TrainState.*MultiSteps.*lookahead".replace(".*", r"[\s\S]*")):
            tx.update(PARAMS, tx.init(PARAMS), PARAMS)

    def test_other_errors(self):
        tx = cgalr_jax.scale_by_connectome(EXAMPLE)
        state = tx.init(PARAMS)
        with pytest.raises(
            ValueError,
            match=r"^probe must be a function, probe\(params\) -> activations, .*got 3",
        ):
            tx.update(PARAMS, state, PARAMS, probe=3)
        with pytest.raises(ValueError, match="^params must be passed to update"):
            tx.update(PARAMS, state, probe=probe)
        with pytest.raises(
            ValueError, match=r"^activations must be the layers of the example.*'hidden': 16.*\(4, 9\)"
        ):
            tx.update(PARAMS, state, PARAMS, activations={"hidden": jnp.ones((4, 9))})
        with pytest.raises(ValueError, match=r"^activations must be the layers of the example.*other"):
            tx.update(PARAMS, state, PARAMS, activations={"other": jnp.ones((4, 16))})
        paired = cgalr_jax.scale_by_connectome(EXAMPLE, samples=X[:32])
        with pytest.raises(ValueError, match=r"^samples must have the shape.*\(32, 6\).*got \(7, 6\)"):
            paired.update(PARAMS, paired.init(PARAMS), PARAMS, probe=hidden, samples=X[:7])
        with pytest.raises(ValueError, match="^samples must have the structure"):
            paired.update(PARAMS, paired.init(PARAMS), PARAMS, probe=hidden, samples=(X[:32],))


class TestConstructor:
    def test_arrays_shapes_and_numbers_are_the_same_example(self):
        examples = (probe(PARAMS), jax.eval_shape(probe, PARAMS), {"hidden": 16}, {"hidden": np.int64(16)})
        states = [cgalr_jax.scale_by_connectome(e).init(PARAMS) for e in examples]
        for state in states[1:]:
            jax.tree.map(np.testing.assert_array_equal, states[0], state)

    def test_a_bare_array_is_a_layer(self):
        tx = cgalr_jax.scale_by_connectome(
            probe(PARAMS)["hidden"], signal=signals.frobenius(), controller=fixed(1.0)
        )
        _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, activations=probe(PARAMS)["hidden"])
        assert state.cg_valid

    def test_wide_layers_are_sub_sampled_the_same_way_each_time(self):
        wide = jax.random.normal(jax.random.key(5), (64, 200))
        sizes = []
        for _ in range(2):
            tx = cgalr_jax.scale_by_connectome(
                {"a": 200}, max_units=40, signal=signals.frobenius(), controller=fixed(1.0)
            )
            _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, activations={"a": wide})
            sizes.append(state.cg_before["a"])
        assert sizes[0].shape == (40, 40)
        np.testing.assert_array_equal(*sizes)
        # It is a principal submatrix of the whole connectome, up to the rounding of another matrix product.
        whole = np.asarray(cgalr_jax.topology.functional_connectome(wide))
        gaps = np.abs(whole[:, :, None] - np.asarray(sizes[0])[0, 1:]).min(axis=(0, 1))
        assert gaps.max() < 1e-6


class TestNothingLost:
    def updates(self, tx, batches):
        state = tx.init(PARAMS)
        update = jax.jit(tx.update)
        states = []
        for batch in batches:
            updates, state = update(PARAMS, state, PARAMS, activations={"hidden": batch})
            assert all(np.isfinite(x).all() for x in jax.tree.leaves((updates, state)))
            states.append(state)
        return states

    GOOD = jax.random.normal(jax.random.key(3), (64, 16))
    BAD = {
        "nan": GOOD.at[3, 4].set(jnp.nan),
        "inf": GOOD.at[3, 4].set(jnp.inf),
        "all nan": jnp.full((64, 16), jnp.nan),
        "dead": jnp.zeros((64, 16)),
        "constant": jnp.full((64, 16), 3.7),
        "one live unit": jnp.zeros((64, 16)).at[:, 5].set(GOOD[:, 5]),
        "a batch of one": GOOD[:1],
        "huge": GOOD.at[0, 0].set(3e38),
    }

    TOLD = {  # made once, so that JAX compiles once
        name: cgalr_jax.scale_by_connectome(
            EXAMPLE, every=1, controller=controller(), signal=signals.frobenius()
        )
        for name, controller in (
            ("calibrated", controllers.calibrated),
            ("gate", controllers.hysteresis_gate),
        )
    }

    @pytest.mark.parametrize("bad", BAD)
    @pytest.mark.parametrize("told", TOLD)
    def test_a_bad_measurement_is_skipped_and_counted(self, told, bad):
        tx = self.TOLD[told]
        other = self.GOOD + 0.3 * self.GOOD[:, ::-1]
        states = self.updates(tx, [self.GOOD, self.BAD[bad], other])
        if bad == "huge":  # overflows the variance of one unit, or does not: either way nothing is lost
            return
        first, second, third = states
        assert second.cg_skipped == 1
        assert second.cg_scale < first.cg_scale
        # The last good reading is still there, and the next measurement compares with it.
        if bad not in ("dead", "constant", "one live unit", "a batch of one"):
            jax.tree.map(np.testing.assert_array_equal, first.cg_before, second.cg_before)
            assert third.cg_measurements == 1
            connect = cgalr_jax.topology.functional_connectome
            np.testing.assert_allclose(
                third.cg_distance,
                cgalr_jax.topology.frobenius_distance(connect(self.GOOD), connect(other)),
                rtol=1e-5,
            )

    def test_two_samples_are_enough_to_go_on(self):
        tx = cgalr_jax.scale_by_connectome(EXAMPLE, every=1, signal=signals.births(), controller=fixed(1.0))
        self.updates(tx, [self.GOOD[:2], self.GOOD[2:4], self.GOOD])

    def test_a_bad_start_is_survived(self):
        tx = self.TOLD["calibrated"]
        states = self.updates(tx, [self.BAD["nan"], self.GOOD, self.GOOD * 1.5, self.GOOD[:, ::-1]])
        assert [int(s.cg_skipped) for s in states] == [1, 1, 1, 1]
        assert [int(s.cg_measurements) for s in states] == [0, 0, 1, 2]
        assert states[-1].cg_distance > 0

    def test_paired_keeps_reading_and_samples_together(self):
        tx = cgalr_jax.scale_by_connectome(
            EXAMPLE, samples=X[:32], every=1, signal=signals.frobenius(), controller=fixed(1.0)
        )
        state = tx.init(PARAMS)
        update = jax.jit(functools.partial(tx.update, probe=hidden))
        for batch in (X[:32], X[32:64].at[0, 0].set(jnp.nan), X[64:96]):
            _, state = update(PARAMS, state, PARAMS, samples=batch)
        assert state.cg_skipped == 1
        assert state.cg_distance == 0  # always the same parameters on the same samples
        np.testing.assert_array_equal(state.cg_samples, X[64:96])


def test_the_controller_is_told_the_distance_in_set_points():
    signal = signals.frobenius()
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, every=1, controller=fixed(0.5), signal=signal)
    state = tx.init(PARAMS)
    update = jax.jit(functools.partial(tx.update, probe=probe))
    for i in range(12):
        params = jax.tree.map(lambda p, i=i: p * (1 + 0.1 * (i % 3)) + 0.01 * i**1.5, PARAMS)
        _, state = update(PARAMS, state, params)
        expected = state.cg_distance / signal.set_point_at(1)
        np.testing.assert_allclose(state.cg_control.controller, expected, rtol=1e-5)


def test_updates_are_scaled_and_keep_their_dtype():
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, controller=fixed(0.25), signal=signals.frobenius())
    updates = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(3, jnp.float16), "c": None, "d": jnp.ones(3)}
    scaled, _ = tx.update(updates, tx.init(PARAMS), PARAMS, probe=probe)
    assert jax.tree.map(lambda x: x.dtype, scaled) == jax.tree.map(lambda x: x.dtype, updates)
    for leaf in jax.tree.leaves(scaled):
        np.testing.assert_array_equal(leaf, jnp.full(3, 0.25, leaf.dtype))


def test_no_gradient_flows_through_the_control_path():
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, every=1)
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, probe=probe)

    def scale(factor):
        params = jax.tree.map(lambda p: p * factor + factor, PARAMS)
        return tx.update(PARAMS, state, params, probe=probe)[1].cg_scale

    assert jax.grad(scale)(1.1) == 0


def test_cgalr_is_the_chain():
    schedule = optax.cosine_decay_schedule(0.1, 50)
    ready = cgalr_jax.cgalr(schedule, EXAMPLE, every=5)
    chained = optax.chain(
        optax.sgd(schedule, momentum=0.9),
        cgalr_jax.scale_by_connectome(EXAMPLE, every=5, controller=cgalr_jax.calibrated(schedule)),
    )
    one, _ = run(ready, 30, extra=lambda x: {"probe": probe})
    other, _ = run(chained, 30, extra=lambda x: {"probe": probe})
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_an_injected_schedule_may_begin_and_end_at_zero():
    """Where nothing is compiled, `inject_hyperparams` hands out 0 as a number that is known."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 4)
    controller = cgalr_jax.calibrated(schedule)
    optimizer = optax.inject_hyperparams(lambda rate: cgalr_jax.cgalr(rate, EXAMPLE, controller=controller))
    tx = optimizer(schedule)
    state, rates = tx.init(PARAMS), []
    for _ in range(5):
        _, state = tx.update(PARAMS, state, PARAMS, probe=probe)
        found = cgalr_jax.metrics(state)
        rates.append(found["cgalr/learning_rate"] / found["cgalr/scale"])
    np.testing.assert_allclose(rates, [schedule(step) for step in range(5)], rtol=1e-6)
    assert rates[0] == rates[4] == 0
    with pytest.raises(ValueError, match="from 0 there is no way up"):
        cgalr_jax.cgalr(0.0, EXAMPLE)


def test_the_schedule_is_the_true_rate():
    schedule = cgalr_jax.connectome_schedule(optax.linear_schedule(0.1, 0.0, 100), EXAMPLE, every=2)
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=schedule)
    state = tx.init(PARAMS)
    params = PARAMS

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(params, X, Y)
        return grads, *tx.update(grads, state, params, probe=functools.partial(probe, params))

    for _ in range(12):
        grads, updates, state = step(params, state)
        rate = state.hyperparams["learning_rate"]
        jax.tree.map(lambda u, g, r=rate: np.testing.assert_allclose(u, -r * g, rtol=1e-6), updates, grads)
        params = optax.apply_updates(params, updates)
    found = cgalr_jax.metrics(state)
    assert found["cgalr/measurements"] == 5
    # Optax asks for the rate before it hands over the new activations: a measurement acts one step later.
    np.testing.assert_allclose(state.hyperparams["learning_rate"], found["cgalr/learning_rate"], rtol=1e-6)


def test_the_schedule_refuses_signals_that_read_parameters():
    with pytest.raises(ValueError, match="^signal must be one that reads activations only"):
        cgalr_jax.connectome_schedule(0.1, EXAMPLE, signal=signals.hybrid())


class TestMetrics:
    def test_keys(self):
        tx = cgalr_jax.cgalr(0.1, EXAMPLE)
        names = {"scale", "distance", "motion", "measurements", "skipped", "refused", "cut", "step"}
        names |= {"phase", "anchor", "ended", "learning_rate"}
        found = cgalr_jax.metrics(tx.init(PARAMS))
        assert set(found) == {f"cgalr/{name}" for name in names}
        assert all(value.shape == () for value in found.values())

    def test_several_instances(self):
        block = cgalr_jax.scale_by_connectome(EXAMPLE)
        found = cgalr_jax.metrics(optax.chain(block, optax.sgd(0.1), block).init(PARAMS))
        assert {"cgalr/0/scale", "cgalr/1/scale"} < set(found)

    def test_a_controller_without_a_phase(self):
        tx = cgalr_jax.scale_by_connectome(EXAMPLE, controller=fixed(1.0))
        assert "cgalr/phase" not in cgalr_jax.metrics(tx.init(PARAMS))


class Ramping(NamedTuple):
    """State of a controller that calibrates until it has been told of so many measurements."""

    told: jax.Array

    @property
    def calibrating(self):
        return self.told < 7


def ramping(early):
    def update(measurement, state):
        return jnp.float32(1.0), Ramping(state.told + 1)

    return controllers.Controller(lambda: (jnp.float32(1.0), Ramping(jnp.int32(0))), update, early)


class TestCadence:
    def measured(self, controller, steps=40):
        """The steps at which a distance was measured."""
        tx = cgalr_jax.scale_by_connectome(controller=controller, signal=signals.update_norm())

        def step(state, i):
            params = jax.tree.map(lambda p: p + 0.01 * i.astype(jnp.float32), PARAMS)
            after = tx.update(PARAMS, state, params)[1]
            return after, after.cg_measurements - state.cg_measurements

        _, found = jax.lax.scan(step, tx.init(PARAMS), jnp.arange(steps))
        return np.flatnonzero(found).tolist()

    def test_every_step_while_calibrating_early_in_the_run(self):
        assert self.measured(ramping(20)) == [1, 2, 3, 4, 5, 6, 7, 10, 20, 30]

    def test_no_longer_than_is_early(self):
        assert self.measured(ramping(4)) == [1, 2, 3, 10, 20, 30]

    def test_a_controller_without_a_ramp(self):
        assert self.measured(ramping(0)) == [10, 20, 30]
        assert self.measured(fixed(1.0)) == [10, 20, 30]

    def test_the_length_of_the_run_chooses_the_cadence(self):
        def measurements(taken, **arguments):
            tx = cgalr_jax.cgalr(0.1, signal=signals.update_norm(), **arguments)
            step = jax.jit(lambda state: tx.update(PARAMS, state, PARAMS)[1])
            state = tx.init(PARAMS)
            for _ in range(taken):
                state = step(state)
            return int(cgalr_jax.metrics(state)["cgalr/measurements"])

        assert measurements(12, controller=fixed(1.0)) == 1  # every ten steps
        assert measurements(12, controller=fixed(1.0), every=4) == 2
        assert measurements(12, steps=200) == 11  # the ramp: each step

    def test_the_length_of_the_run_means_the_same_to_a_schedule(self):
        tx = cgalr_jax.cgalr(0.1, EXAMPLE, steps=120, signal=signals.frobenius())
        schedule = cgalr_jax.connectome_schedule(0.1, EXAMPLE, steps=120)

        @jax.jit
        def step(state, other, activations):
            after = tx.update(PARAMS, state, PARAMS, activations=activations)[1]
            return after, schedule.update(other, activations=activations)

        states = tx.init(PARAMS), schedule.init()
        for i in range(6):
            states = step(*states, activations={"hidden": X @ (PARAMS["w"] + 0.1 * i)})
        found, other = (cgalr_jax.metrics(state) for state in states)
        assert found["cgalr/measurements"] == other["cgalr/measurements"] == 5
        assert found["cgalr/scale"] == other["cgalr/scale"]

    @pytest.mark.parametrize("make", [cgalr_jax.cgalr, cgalr_jax.connectome_schedule])
    def test_a_controller_knows_the_length_of_the_run_itself(self, make):
        with pytest.raises(ValueError, match=r"steps must be None beside a controller.*steps=200.*got both"):
            make(0.1, EXAMPLE, steps=200, controller=cgalr_jax.calibrated())

    def test_a_distance_is_in_set_points_of_the_steps_it_spans(self):
        class Seen(NamedTuple):
            motion: jax.Array
            calibrating = False

        controller = controllers.Controller(
            lambda: (jnp.float32(1), Seen(jnp.float32(0))),
            lambda measurement, state: (jnp.float32(1), Seen(measurement.distance)),
            early=3,
        )
        signal = signals.update_norm()
        tx = cgalr_jax.scale_by_connectome(controller=controller, signal=signal, every=4)
        state, update = tx.init(PARAMS), jax.jit(tx.update)
        for step in range(5):
            params = jax.tree.map(lambda p, step=step: p * (1 + 0.01 * step), PARAMS)
            state = update(PARAMS, state, params)[1]
        motion = state.cg_distance / signal.set_point_at(4)
        np.testing.assert_allclose(state.cg_control.controller.motion, motion, rtol=1e-5)


class TestBound:
    """No step changes a matrix by more than a share of it; the controller hears how often one was to."""

    def step(self, factor, **options):
        tx = cgalr_jax.scale_by_connectome(controller=fixed(1.0), signal=signals.update_norm(), **options)
        updates = {"w": factor * PARAMS["w"], "b": jnp.full(16, 0.01), "v": 1e-3 * PARAMS["v"]}
        return updates, *tx.update(updates, tx.init(PARAMS), PARAMS)

    def test_a_large_step_is_scaled_down_as_a_whole(self):
        updates, scaled, state = self.step(3.0, max_share=0.2)
        share = signals.largest_share(updates, PARAMS)
        np.testing.assert_allclose(signals.largest_share(scaled, PARAMS), 0.2, rtol=1e-5)
        np.testing.assert_allclose(scaled["b"], 0.01 * 0.2 / share, rtol=1e-5)
        assert state.cg_cut == 1

    def test_a_small_step_passes(self):
        updates, scaled, state = self.step(1e-3)
        jax.tree.map(np.testing.assert_array_equal, updates, scaled)
        assert state.cg_cut == 0

    def test_nan_passes_and_counts_for_nothing(self):
        updates, scaled, state = self.step(np.nan)
        jax.tree.map(np.testing.assert_array_equal, updates, scaled)
        assert state.cg_cut == 0

    def test_infinity_is_seen_and_moves_nothing_else(self):
        _, scaled, state = self.step(np.inf)
        assert not np.any(np.isfinite(scaled["w"]))
        assert np.all(scaled["b"] == 0)
        assert state.cg_cut == 1

    def test_without_a_bound_nothing_is_cut(self):
        updates, scaled, state = self.step(3.0, max_share=None)
        jax.tree.map(np.testing.assert_array_equal, updates, scaled)
        assert state.cg_cut == 0

    def test_the_controller_is_told_how_many_steps_were_cut_since_the_last_measurement(self):
        told = controllers.Controller(
            lambda: (jnp.float32(1), jnp.float32(0)), lambda m, _: (jnp.float32(1), jnp.asarray(m.cut))
        )
        tx = cgalr_jax.scale_by_connectome(controller=told, signal=signals.update_norm(), every=3)
        state = tx.init(PARAMS)
        for factor in (0.01, 2.0, 0.5, 2.0, 0.01, 0.5, 0.01):
            updates = jax.tree.map(lambda p, factor=factor: factor * p, PARAMS)
            state = tx.update(updates, state, PARAMS)[1]
        np.testing.assert_allclose(state.cg_control.controller, 2 / 3, rtol=1e-5)
        assert cgalr_jax.metrics(state)["cgalr/cut"] == 4


class TestMeasure:
    """One measurement by itself: two readings, an instrument, a state."""

    def instrument_and_state(self, signal):
        tx = cgalr_jax.scale_by_connectome(EXAMPLE, signal=signal, controller=fixed(0.5))
        state = tx.init(PARAMS)
        return Instrument(
            signal, controllers.envelope(fixed(0.5)), layers.layout_of(EXAMPLE, 256), 10, None, None
        ), state

    def test_a_reading_is_stored_then_compared(self):
        signal = signals.frobenius()
        instrument, state = self.instrument_and_state(signal)
        one, other = (instrument.read(hidden(PARAMS, x), PARAMS) for x in (X[:64], X[64:128]))
        first = measure(instrument, state, one, one, None)
        assert first.cg_valid
        assert first.cg_measurements == 0
        assert first.cg_scale == state.cg_scale
        second = measure(instrument, first._replace(cg_moves=jnp.int32(1)), other, other, None)
        assert second.cg_measurements == 1
        assert second.cg_moves == 0
        assert second.cg_scale == 0.5
        np.testing.assert_allclose(second.cg_distance, signal.compare(one, other))

    @pytest.mark.parametrize("distance", [np.nan, np.inf, -np.inf, -1.0])
    def test_a_distance_that_cannot_be_used_is_skipped(self, distance):
        def compare(before, after):
            return jnp.float32(distance)

        signal = signals.frobenius()._replace(compare=compare)
        instrument, state = self.instrument_and_state(signal)
        reading = instrument.read(hidden(PARAMS, X[:64]), PARAMS)
        state = measure(instrument, state, reading, reading, None)
        state = measure(instrument, state._replace(cg_moves=jnp.int32(1)), reading, reading, None)
        assert state.cg_measurements == 0
        assert state.cg_skipped == 1
        assert not jnp.isfinite(state.cg_control.controller)  # what the controller is told


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.contrib.schedule_free_adamw,
        lambda rate: optax.chain(optax.clip(1.0), optax.contrib.schedule_free(optax.sgd(rate), 0.1)),
        lambda rate: optax.contrib.mechanize(optax.sgd(rate)),
        lambda rate: optax.masked(optax.contrib.mechanize(optax.sgd(rate)), True),
        lambda rate: optax.lookahead(optax.sgd(rate), 5, 0.5),
        lambda rate: optax.contrib.sam(optax.sgd(rate), optax.sgd(0.01)),
    ],
    ids=["schedule-free", "in a chain", "mechanic", "masked", "lookahead", "sam in two steps"],
)
def test_an_optimizer_that_keeps_parameters_of_its_own_is_refused(optimizer):
    tx = cgalr_jax.cgalr(0.1, {"h": 4}, optimizer=optimizer)
    with pytest.raises(ValueError, match="optimizer must be one whose updates can be multiplied .*State"):
        tx.init(optax.LookaheadParams({"w": jnp.ones((3, 4))}, {"w": jnp.ones((3, 4))}))


@pytest.mark.parametrize(
    "wrap", [lambda tx: tx, lambda tx: optax.chain(optax.clip(1.0), tx)], ids=["", "chain"]
)
def test_an_optimizer_that_counts_its_own_updates_is_refused(wrap):
    """The controller's schedule would be over while the optimizer's is at its beginning."""
    several = lambda rate: wrap(optax.MultiSteps(optax.adamw(rate), 4).gradient_transformation())  # noqa: E731
    tx = cgalr_jax.cgalr(0.1, {"h": 4}, optimizer=several)
    with pytest.raises(
        ValueError, match=r"^optimizer must be one that updates at each step.*MultiSteps\(cgalr_"
    ):
        tx.init({"w": jnp.ones((3, 4))})
    optax.MultiSteps(cgalr_jax.cgalr(0.1, {"h": 4}), 4).init({"w": jnp.ones((3, 4))})


def test_sam_in_opaque_mode_makes_whole_steps():
    opaque = lambda rate: optax.contrib.sam(optax.sgd(rate), optax.sgd(0.01), opaque_mode=True)  # noqa: E731
    cgalr_jax.cgalr(0.1, {"h": 4}, optimizer=opaque).init({"w": jnp.ones((3, 4))})


def test_an_optimizer_that_takes_no_schedule_is_named():
    with pytest.raises(ValueError, match="optimizer must be .* a schedule, .* got <function sm3.* TypeError"):
        cgalr_jax.cgalr(optax.cosine_decay_schedule(0.1, 10), {"h": 4}, optimizer=optax.sm3)
    cgalr_jax.cgalr(0.1, {"h": 4}, optimizer=optax.sm3)


def test_momentum_is_that_of_the_default_optimizer():
    with pytest.raises(ValueError, match="momentum .* must be left out beside optimizer=.* got momentum=0.5"):
        cgalr_jax.cgalr(0.1, {"hidden": 4}, optimizer=optax.adam, momentum=0.5)
    cgalr_jax.cgalr(0.1, {"hidden": 4}, momentum=0.5)


def test_a_run_may_be_one_step_long():
    state = cgalr_jax.cgalr(0.1, EXAMPLE, steps=1).init(PARAMS)
    assert cgalr_jax.metrics(state)["cgalr/step"] == 0


def test_a_reading_of_which_one_part_is_not_finite_is_not_kept():
    signal = signals.from_connectomes(None, topology.frobenius_distance, "max", None, 1.0)
    tx = cgalr_jax.scale_by_connectome({"one": 4, "two": 4}, signal=signal, every=1)
    state = tx.init(PARAMS)
    rows = jnp.sin(jnp.arange(32.0).reshape(8, 4) ** 2)
    for two in (rows, rows.at[0, 0].set(jnp.nan)):
        state = tx.update(PARAMS, state, PARAMS, activations={"one": rows, "two": two})[1]
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.cg_before))
    assert state.cg_skipped == 1


@pytest.mark.parametrize("factor", [1.5, 1.0])
def test_a_motion_that_leaves_float32_in_its_set_points_is_skipped(factor):
    """A finite distance over a tiny set-point: infinity, or 0 / 0."""
    signal = signals.update_norm(set_point=1.2e-38)
    tx = cgalr_jax.scale_by_connectome(every=1, signal=signal, controller=controllers.hysteresis_gate())
    state = tx.init(PARAMS)
    for size in (1.0, factor):
        _, state = tx.update(PARAMS, state, jax.tree.map(lambda x, size=size: size * x, PARAMS))
    assert (state.cg_measurements, state.cg_skipped, state.cg_motion) == (0, 1, 0)
    assert state.cg_scale < 1
