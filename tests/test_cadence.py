"""Which steps measure: decided while the program runs or by its caller, the same trajectory to the bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import compilations
from light import ECHO, LIGHT, PLAIN

import cgalr_jax
from cgalr_jax import cadence, controllers, signals

X = jax.random.normal(jax.random.key(0), (64, 6))
Y = jnp.sin(X @ jnp.linspace(-2, 2, 6))
PARAMS = {
    "w": jax.random.normal(jax.random.key(1), (6, 16)) / 6**0.5,
    "v": jax.random.normal(jax.random.key(2), (16,)) / 4,
}
EXAMPLE = {"hidden": 16}
SCHEDULE = optax.cosine_decay_schedule(0.1, 60)


def hidden(params, x):
    with jax.named_scope("the_probe"):
        return {"hidden": x @ params["w"]}


def loss(params, x):
    return jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"] - Y[: len(x)]) ** 2)


def paired(params, x):
    return {"probe": hidden, "samples": x}


def fixed(params, x):
    return {"probe": lambda params: hidden(params, X[:32])}


def given(params, x):
    return {"activations": hidden(params, x)}


def bound(params, x):
    """For a schedule, which is not handed the parameters."""
    return {"probe": functools.partial(hidden, params, X[:32])}


def stepper(tx, extra):
    """One training step, to be compiled for each value of `measure`."""

    @functools.partial(jax.jit, static_argnames="measure")
    def step(params, state, x, measure=None):
        updates, state = tx.update(
            jax.grad(loss)(params, x), state, params, measure=measure, **extra(params, x)
        )
        return optax.apply_updates(params, updates), state

    return step


def batch(step):
    return X[step % 2 * 32 :][:32]


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def in_multi_steps():
    ours = cgalr_jax.cgalr(SCHEDULE, EXAMPLE, samples=X[:32], every=4, **PLAIN)
    multi = optax.MultiSteps(ours, every_k_schedule=2)
    return optax.GradientTransformationExtraArgs(multi.init, multi.update)


def in_a_mask():
    block = cgalr_jax.scale_by_connectome(EXAMPLE, every=4, **PLAIN)
    return optax.chain(optax.sgd(0.01), optax.masked(block, {"w": True, "v": False}))


def in_a_partition():
    ours = cgalr_jax.cgalr(SCHEDULE, EXAMPLE, every=4, **PLAIN)
    return optax.partition({"ours": ours, "plain": optax.sgd(0.01)}, {"w": "ours", "v": "plain"})


def as_a_schedule():
    schedule = cgalr_jax.connectome_schedule(SCHEDULE, EXAMPLE, every=4)
    return optax.inject_hyperparams(optax.adam)(learning_rate=schedule)


# {name: (the optimizer, its extra arguments, those of the helper)}
FOUR = {"every": 4}
RUNS = {
    "paired": (lambda: cgalr_jax.cgalr(SCHEDULE, EXAMPLE, samples=X[:32]), paired, {}),
    "fixed probe": (
        lambda: cgalr_jax.cgalr(SCHEDULE, EXAMPLE, every=4, **PLAIN),
        fixed,
        FOUR,
    ),
    "given": (
        lambda: cgalr_jax.cgalr(0.1, EXAMPLE, optimizer=optax.adamw, **PLAIN),
        given,
        {},
    ),
    "the length of the run": (
        lambda: cgalr_jax.cgalr(
            SCHEDULE, EXAMPLE, samples=X[:32], steps=30, every=8, signal=signals.frobenius()
        ),
        paired,
        {"steps": 30, "every": 8},
    ),
    "a short run": (
        lambda: cgalr_jax.cgalr(SCHEDULE, EXAMPLE, steps=60, every=4, signal=LIGHT),
        fixed,
        {"steps": 60, "every": 4},
    ),
    "no probe": (
        lambda: cgalr_jax.cgalr(0.1, signal=signals.update_norm(), every=4, controller=ECHO),
        lambda params, x: {},
        FOUR,
    ),
    "masked": (in_a_mask, fixed, FOUR),
    "partition": (in_a_partition, fixed, FOUR),
    "inject_hyperparams": (as_a_schedule, bound, FOUR),
    "apply_if_finite": (
        lambda: optax.apply_if_finite(cgalr_jax.cgalr(SCHEDULE, EXAMPLE, every=4, **PLAIN), 3),
        fixed,
        FOUR,
    ),
}


# A fixed probe is in the wrappers, too, a short run has a test of its own, and a partition is made of masks.
LIKE_ANOTHER = (
    "fixed probe",
    "given",
    "the length of the run",  # `test_in_an_nnx_optimizer` knows it
    "a short run",
    "no probe",
    "masked",
    "partition",
    "inject_hyperparams",
)


class TestTheSameTrajectory:
    @pytest.mark.parametrize(
        "name",
        [pytest.param(name, marks=pytest.mark.slow if name in LIKE_ANOTHER else ()) for name in RUNS],
    )
    def test_bit_for_bit_in_two_compilations(self, name):
        make, extra, cadence_of = RUNS[name]
        tx = make()
        step = stepper(tx, extra)
        decided = called = PARAMS, tx.init(PARAMS)
        for i in range(40):
            decided = step(*decided, batch(i))
        with compilations() as names:
            for i in range(40):
                state = {"opt_state": called[1]} if "steps" in cadence_of else {}
                measure = cgalr_jax.is_measurement_step(i, **cadence_of, **state)
                assert type(measure) is bool
                called = step(*called, batch(i), measure=measure)
        assert_same(decided, called)
        assert cgalr_jax.metrics(called[1])["cgalr/measurements"] > 2
        assert sum("jit(step)" in name for name in names) == 2

    def test_each_step_of_a_ramp_and_none_after_it(self):
        make, extra, cadence_of = RUNS["a short run"]
        tx = make()
        step = stepper(tx, extra)
        params, state = PARAMS, tx.init(PARAMS)
        asked, ended = [], []
        for i in range(60):
            asked.append(cgalr_jax.is_measurement_step(i, **cadence_of, opt_state=state))
            ended.append(bool(cgalr_jax.metrics(state)["cgalr/ended"] != controllers.UNFINISHED))
            params, state = step(params, state, batch(i), measure=asked[-1])
        assert asked == [i % 4 == 0 or not end for i, end in enumerate(ended)]
        assert 8 < ended.index(True) < 100
        # No longer than a ramp may take, whatever the state says.
        fresh = tx.init(PARAMS)
        assert cgalr_jax.is_measurement_step(99, 4, steps=60, opt_state=fresh)
        assert not cgalr_jax.is_measurement_step(101, 4, steps=60, opt_state=fresh)

    def test_in_micro_batches_the_last_of_them_measures(self):
        tx = in_multi_steps()
        step = stepper(tx, paired)
        decided = called = PARAMS, tx.init(PARAMS)
        for i in range(40):
            decided = step(*decided, batch(i))
            measure = i % 2 == 1 and cgalr_jax.is_measurement_step(i // 2, every=4)
            called = step(*called, batch(i), measure=measure)
        # XLA rounds differently inside of the conditional of MultiSteps, if it is not to optimise.
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), decided, called)
        counts = [cgalr_jax.metrics(state)["cgalr/measurements"] for _, state in (decided, called)]
        assert counts[0] == counts[1] > 2

    @pytest.mark.parametrize("steps", [pytest.param(None, marks=pytest.mark.slow), 300])
    def test_in_an_nnx_optimizer(self, steps):
        nnx = pytest.importorskip("flax.nnx")
        from cgalr_jax import capture

        def begin():
            rngs = nnx.Rngs(0)
            model = nnx.Sequential(nnx.Linear(6, 16, rngs=rngs), jnp.tanh, nnx.Linear(16, 1, rngs=rngs))
            example = capture.example(model, X[:32])
            signal = signals.frobenius()
            tx = cgalr_jax.cgalr(SCHEDULE, example, samples=X[:32], steps=steps, every=4, signal=signal)
            return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

        @functools.partial(nnx.jit, static_argnames="measure")
        def step(model, optimizer, x, measure=None):
            grads = nnx.grad(lambda model: jnp.mean((model(x)[:, 0] - Y[:32]) ** 2))(model)
            optimizer.update(model, grads, probe=capture.nnx_probe(model), samples=x, measure=measure)

        decided, called = begin(), begin()
        for i in range(24):
            step(*decided, batch(i))
            known = {} if steps is None else {"steps": steps, "opt_state": called[1]}
            step(*called, batch(i), measure=cgalr_jax.is_measurement_step(i, 4, **known))
        assert_same(nnx.state(decided), nnx.state(called))
        assert cgalr_jax.metrics(called[1])["cgalr/measurements"] == (5 if steps is None else 23)

    def test_a_loop_over_blocks_in_one_program(self):
        tx = cgalr_jax.cgalr(SCHEDULE, EXAMPLE, samples=X[:32], every=5, **PLAIN)
        step = stepper(tx, paired)

        @jax.jit
        def block(carry, batches):
            first, others = batches[0], batches[1:]
            carry = step(*carry, first, measure=True)
            return jax.lax.scan(lambda carry, x: (step(*carry, x, measure=False), None), carry, others)[0]

        decided = called = PARAMS, tx.init(PARAMS)
        for i in range(0, 40, 5):
            for k in range(5):
                decided = step(*decided, batch(i + k))
            called = block(called, jnp.stack([batch(i + k) for k in range(5)]))
        assert_same(decided, called)

    def test_without_jit(self):
        tx = cgalr_jax.cgalr(SCHEDULE, EXAMPLE, samples=X[:32], every=2, **PLAIN)
        decided = called = PARAMS, tx.init(PARAMS)
        for i in range(4):
            runs = []
            for (params, state), measure in ((decided, None), (called, cgalr_jax.is_measurement_step(i, 2))):
                grads = jax.grad(loss)(params, batch(i))
                updates, state = tx.update(grads, state, params, measure=measure, **paired(params, batch(i)))
                runs.append((optax.apply_updates(params, updates), state))
            decided, called = runs
        assert_same(decided, called)


class TestWhatIsCompiled:
    def texts(self, extra, tx):
        """What XLA is given to compile for each value of `measure`."""
        step, state = stepper(tx, extra), tx.init(PARAMS)
        return {
            measure: step.lower(PARAMS, state, batch(0), measure=measure).as_text(debug_info=True)
            for measure in (None, True, False)
        }

    @pytest.mark.parametrize(
        ("extra", "stored", "steps"),
        [
            pytest.param(fixed, None, None, id="fixed"),
            pytest.param(paired, X[:32], 300, id="paired-300"),
            pytest.param(fixed, None, 300, id="fixed-300", marks=pytest.mark.slow),
            pytest.param(paired, X[:32], None, id="paired", marks=pytest.mark.slow),
        ],
    )
    def test_a_step_that_does_not_measure_has_no_probe(self, extra, stored, steps):
        texts = self.texts(extra, cgalr_jax.cgalr(SCHEDULE, EXAMPLE, samples=stored, steps=steps))
        assert {measure: "the_probe" in text for measure, text in texts.items()} == {
            None: True,
            True: True,
            False: False,
        }
        # Neither the condition, nor what is behind it: connectome, spanning tree, controller.
        assert "stablehlo.case" in texts[None]
        assert "stablehlo.while" in texts[True]
        assert "stablehlo.case" not in texts[False]
        assert "stablehlo.while" not in texts[False]
        assert len(texts[False]) < len(texts[True]) / 4

    def test_a_step_that_measures_has_no_condition(self):
        jaxprs = {}
        for measure in (None, True):
            tx = cgalr_jax.cgalr(SCHEDULE, EXAMPLE, signal=signals.frobenius())
            step = stepper(tx, fixed)
            jaxprs[measure] = str(step.trace(PARAMS, tx.init(PARAMS), batch(0), measure=measure).jaxpr)
        assert "cond[" in jaxprs[None]
        assert "cond[" not in jaxprs[True]

    def test_a_step_that_does_not_measure_needs_nothing(self):
        tx = cgalr_jax.cgalr(SCHEDULE, EXAMPLE, samples=X[:32])
        before = tx.init(PARAMS)
        _, after = tx.update(PARAMS, before, PARAMS, measure=False)
        assert after[1].cg_step == 1
        assert not after[1].cg_valid
        with pytest.raises(ValueError, match="^probe or activations must be passed"):
            tx.update(PARAMS, before, PARAMS, measure=True)


class TestAtOtherSteps:
    def test_a_distance_is_in_set_points_of_the_steps_it_spans(self):
        told = controllers.Controller(
            lambda: (jnp.float32(1.0), jnp.float32(0.0)), lambda m, _: (jnp.float32(1.0), m.distance)
        )
        signal = signals.update_norm()
        tx = cgalr_jax.scale_by_connectome(controller=told, signal=signal)
        state, read_at = tx.init(PARAMS), 0
        for step in range(12):
            params = jax.tree.map(lambda p, step=step: p * (1 + 0.01 * step), PARAMS)
            measure = step in (0, 3, 4, 11)
            state = tx.update(PARAMS, state, params, measure=measure)[1]
            if measure and step:
                expected = state.cg_distance / signal.set_point_at(step - read_at)
                np.testing.assert_allclose(state.cg_control.controller, expected, rtol=1e-5)
                assert cgalr_jax.metrics(state)["cgalr/motion"] == state.cg_control.controller
            read_at = step if measure else read_at
        assert state.cg_measurements == 3

    TX = cgalr_jax.cgalr(SCHEDULE, EXAMPLE, samples=X[:32])
    STEP = staticmethod(stepper(TX, paired))  # compiled once for all

    @pytest.mark.parametrize("when", ["never", "late", "each step", "at random"])
    def test_the_scale_stays_sane(self, when):
        step, random = self.STEP, np.random.default_rng(0)
        params, state = PARAMS, self.TX.init(PARAMS)
        for i in range(60):
            measure = {"never": False, "late": i > 50, "each step": True, "at random": random.random() < 0.3}
            params, state = step(params, state, batch(i), measure=bool(measure[when]))
        found = cgalr_jax.metrics(state)
        assert found["cgalr/skipped"] == 0
        assert found["cgalr/step"] == 60
        assert 0.001 <= found["cgalr/scale"] < 100
        assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(params))


class TestTheHelper:
    def test_the_defaults_are_those_of_cgalr(self):
        assert [cadence.default_every(steps) for steps in (None, 1, 100, 499, 10**6)] == [10, 1, 2, 9, 10]

    def test_integers_of_any_kind(self):
        for kind in (int, np.int64, np.uint8, jnp.int32):
            assert cgalr_jax.is_measurement_step(kind(20), kind(10)) is True
            assert cgalr_jax.is_measurement_step(kind(21), kind(10)) is False

    def test_several_blocks_each_step_of_any_ramp(self):
        short, long = (cgalr_jax.calibrated(steps=300) for _ in range(2))
        blocks = [cgalr_jax.scale_by_connectome(EXAMPLE, controller=one) for one in (short, long)]
        state = optax.chain(optax.sgd(0.1), *blocks).init(PARAMS)
        assert cgalr_jax.is_measurement_step(3, 10, steps=300, opt_state=state)

    def test_what_goes_together(self):
        state = cgalr_jax.cgalr(0.1, EXAMPLE, steps=60).init(PARAMS)
        with pytest.raises(ValueError, match=r"^opt_state must be passed too"):
            cgalr_jax.is_measurement_step(0, steps=60)
        with pytest.raises(ValueError, match=r"^steps must be passed too"):
            cgalr_jax.is_measurement_step(0, opt_state=state)

    def test_a_controller_that_does_not_calibrate(self):
        state = cgalr_jax.cgalr(0.1, EXAMPLE, controller=cgalr_jax.hysteresis_gate()).init(PARAMS)
        with pytest.raises(ValueError, match=r"^opt_state must hold a controller that calibrates.*got none"):
            cgalr_jax.is_measurement_step(3, 10, steps=60, opt_state=state)

    @pytest.mark.parametrize("step", [0, 3, 4, 301], ids=["regular", "early", "both", "late"])
    def test_the_state_is_looked_at_whatever_the_step(self, step):
        gate = cgalr_jax.cgalr(0.1, EXAMPLE, controller=cgalr_jax.hysteresis_gate()).init(PARAMS)
        for state in (gate, {}, "nonsense"):
            with pytest.raises(ValueError, match=r"^opt_state must"):
                cgalr_jax.is_measurement_step(step, 4, steps=200, opt_state=state)

    def test_only_a_step_of_a_ramp_waits_for_the_device(self):
        class Unknown:
            """An array that is still computed."""

            shape = ()

            def __array__(self, *_, **__):
                raise AssertionError("waits")

        state = cgalr_jax.cgalr(0.1, EXAMPLE, steps=200).init(PARAMS)
        unknown = jax.tree.map(lambda _: Unknown(), state)
        assert cgalr_jax.is_measurement_step(4, 4, steps=200, opt_state=unknown)
        assert not cgalr_jax.is_measurement_step(301, 4, steps=200, opt_state=unknown)

    def test_inside_of_jit_it_says_what_to_do(self):
        with pytest.raises(
            ValueError, match=r"^step and opt_state must be known, got traced.*outside of jit"
        ):
            jax.jit(lambda step: cgalr_jax.is_measurement_step(step))(3)


def test_a_traced_flag_says_what_to_do():
    tx = cgalr_jax.cgalr(0.1, EXAMPLE)
    update = jax.jit(lambda state, measure: tx.update(PARAMS, state, PARAMS, measure=measure, probe=hidden))
    with pytest.raises(ValueError, match=r"^measure must be True or False.*got .*static_argnames='measure'"):
        update(tx.init(PARAMS), True)


def test_numbers_travel_through_the_conditional_as_one_array_a_type():
    tx = cgalr_jax.scale_by_connectome(EXAMPLE)
    state = tx.init(PARAMS)

    def update(updates, state):
        return tx.update(updates, state, PARAMS, probe=lambda params: hidden(params, X[:32]))

    equations = jax.make_jaxpr(update)(PARAMS, state).jaxpr.eqns
    (conditional,) = (each for each in equations if each.primitive.name == "cond")
    outputs = [variable.aval for variable in conditional.outvars]
    assert all(output.shape for output in outputs)  # each is copied at each step, on a GPU by a program
    arrays = [leaf for leaf in jax.tree.leaves(state) if leaf.shape]
    types = {leaf.dtype for leaf in jax.tree.leaves(state) if not leaf.shape}
    assert len(types) < len(outputs) <= len(arrays) + len(types)


# --- Many runs at once: a measurement is made where it is due, not at each step because one may be.


def measured_by_runs(advance):
    """How often the probe of four runs side by side was computed; `advance` maps their steps over them."""
    counted = []

    def probe(params):
        jax.debug.callback(lambda: counted.append(0))
        return hidden(params, X[:32])

    tx = cgalr_jax.cgalr(SCHEDULE, EXAMPLE, every=10)

    def step(carry):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, X), state, params, probe=probe)
        return optax.apply_updates(params, updates), state

    jax.block_until_ready(advance(step, tx.init))
    jax.effects_barrier()
    return len(counted)


def runs():
    return jax.tree.map(lambda leaf: jnp.linspace(0.5, 2, 4).reshape(4, *leaf.ndim * [1]) * leaf, PARAMS)


def mapped_over_whole_runs(step, init):
    def run(params):
        return jax.lax.fori_loop(0, 40, lambda _, carry: step(carry), (params, init(params)))

    return jax.jit(jax.vmap(run))(runs())


def mapped_at_each_step(step, init):
    carry, mapped = (runs(), jax.vmap(init)(runs())), jax.jit(jax.vmap(step))
    for _ in range(40):
        carry = mapped(carry)
    return carry


@pytest.mark.parametrize("advance", [mapped_over_whole_runs, mapped_at_each_step])
def test_runs_side_by_side_measure_where_it_is_due(advance):
    assert measured_by_runs(advance) == 4


def test_runs_at_different_steps_are_what_they_are_by_themselves():
    tx = cgalr_jax.cgalr(SCHEDULE, EXAMPLE, every=10)

    def step(carry):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, X), state, params, **fixed(params, X))
        return optax.apply_updates(params, updates), state

    def ahead(run, steps):
        return jax.lax.fori_loop(0, steps, lambda _, carry: step(carry), run)

    jitted, mapped = jax.jit(ahead), jax.jit(jax.vmap(step))
    starts = [(jax.tree.map(lambda leaf, k=k: k * leaf, PARAMS), tx.init(PARAMS)) for k in (0.5, 1.0, 2.0)]
    starts = [jitted(run, 3 * k) for k, run in enumerate(starts)]
    alone = [jitted(run, 25) for run in starts]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    for _ in range(25):
        together = mapped(together)
    for number, run in enumerate(alone):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6),
            run,
            jax.tree.map(lambda leaf, number=number: leaf[number], together),
        )
    assert [int(state[1].cg_step) for _, state in alone] == [25, 28, 31]
    assert len({int(state[1].cg_measurements) for _, state in alone}) > 1


@pytest.mark.parametrize("way", [fixed, paired])
def test_runs_side_by_side_without_jit_compile_nothing_again(way):
    tx = cgalr_jax.cgalr(SCHEDULE, EXAMPLE, samples=X[:8] if way is paired else None, every=2)

    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params, X), state, params, **way(params, X))
        return optax.apply_updates(params, updates), state

    now = runs(), jax.vmap(tx.init)(runs())
    for _ in range(3):
        now = jax.vmap(step)(*now)
    with compilations() as names:
        for _ in range(4):
            now = jax.vmap(step)(*now)
    assert not names
    assert np.all(now[1][1].cg_measurements == 3)
