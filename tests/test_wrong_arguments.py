"""Every argument of every public callable, given what it cannot be: one table.

Each row asserts a ValueError whose first line begins with the name of the argument (or of the part of it
that is wrong), says what is allowed, and shows what came in; and that good values of unusual types pass. That
nothing public is missing from the table is a test of its own.
"""

import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import pytest
from flax import linen, nnx
from light import PLAIN

import cgalr_jax
from cgalr_jax import (
    capture,
    controllers,
    layers,
    plotting,
    presets,
    recorder,
    signals,
    stopping,
    topology,
)
from cgalr_jax.topology import rips

MODULES = (
    "",
    ".capture",
    ".controllers",
    ".layers",
    ".plotting",
    ".presets",
    ".recorder",
    ".signals",
    ".stopping",
    ".topology",
    ".topology.rips",
)


def function(anything, *more):
    return anything


def too_many(a, b, c, d):
    return a


X = jax.random.normal(jax.random.key(0), (8, 4))
PARAMS = {"w": jnp.ones((4, 3))}
EXAMPLE = {"hidden": 3}
SQUARE = np.array([[0, 0.9, 0.2], [0.9, 0, 0.4], [0.2, 0.4, 0]], np.float32)
SORTED = np.array([0.1, 0.5], np.float32)
BARS = topology.Barcode(np.array([0.4, 0.9], np.float32), np.array([0.2], np.float32))
TREE = topology.Tree(np.array([[1, 2], [0, 1]], np.int32), np.array([0.4, 0.9], np.float32))
MOMENTS = topology.Moments(jnp.float32(0), jnp.zeros(3), jnp.zeros((3, 3)))
LAYOUT = layers.layout_of(EXAMPLE, 16)
GATE = cgalr_jax.hysteresis_gate()
CURVE = cgalr_jax.LearningRateCurve(0.1, 0.08, 0.13, True, np.array([0.1, 1.0]), np.array([0.5, 2.0]))
LINEN = linen.Sequential([linen.Dense(3), jnp.tanh, linen.Dense(2)])
VARIABLES = LINEN.init(jax.random.key(0), X)
NNX = nnx.Sequential(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), jnp.tanh, nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
STATE = cgalr_jax.cgalr(0.1, EXAMPLE).init(PARAMS)
AVERAGED = cgalr_jax.polynomial_averaging().init(PARAMS)
AX = matplotlib.figure.Figure().subplots()
AXES = matplotlib.figure.Figure().subplots(3)
TRACE = {"loss": np.ones(3), "cgalr/scale": np.ones(3)}

# --- what comes in, by what was wanted

NUMBERS = {
    "nothing": None,
    "a text": "0.5",
    "NaN": math.nan,
    "NaN of NumPy": np.float32(math.nan),
    "NaN of JAX": jnp.float32(math.nan),
    "infinite": math.inf,
    "minus infinity": jnp.float32(-math.inf),
    "negative": -1,
    "zero": 0,
    "a fraction": 2.5,
    "a truth value": True,
    "a truth value of JAX": jnp.array(True),
    "complex": 1j,
    "an array": jnp.ones(3),
    "an array of one": np.ones(1),
    "a list": [1],
    "a function": function,
    "too large for a float": 10**400,
    "too small for float32": 1e-300,
    "masked": np.ma.masked,
}
RECORDS = {
    "nothing": None,
    "a text": "births",
    "a number": 3,
    "an array": jnp.ones(3),
    "a function": function,
    "an optimizer": optax.sgd(0.1),
    "a mapping": {"a": 1},
}
FUNCTIONS = {
    "nothing": None,
    "a text": "relu",
    "a number": 0.5,
    "an array": jnp.ones(3),
    "a mapping": {"a": 1},
    "a function of other arguments": too_many,
}
ARRAYS = {
    "nothing": None,
    "a text": "abc",
    "a function": function,
    "objects": np.array([None, {}], object),
    "texts": np.array([["a", "b"], ["c", "d"]]),
    "complex": np.eye(3, dtype=np.complex64),
    "a key": jax.random.key(0),
    "another rank": np.ones((2, 2, 2), np.float32),
    "a number": 3.0,
    "no entries": np.zeros((0, 0), np.float32),
    "masked": np.ma.array(np.eye(3), mask=np.eye(3)),
    "dates": np.array(["2020-01-01"], np.datetime64),
}
WORDS = {
    "nothing": None,
    "another word": "nosuch",
    "no word": "",
    "a number": 3,
    "a truth value": True,
    "a list": ["min"],
    "an array": jnp.ones(3),
    "a function": function,
    "a record": np.zeros((), [("a", "f4")]),
}
FLAGS = {
    "nothing": None,
    "one": 1,
    "zero": 0.0,
    "a text": "yes",
    "an array": jnp.ones(3),
    "a function": function,
}
PATHS = {
    "nothing": None,
    "a number": 3,
    "a truth value": True,
    "empty": "",
    "a zero byte": "a\0b",
    "an array": jnp.ones(3),
}
TREES = {
    "nothing": None,
    "a text": "abc",
    "a number": 3,
    "a function": function,
    "an array": jnp.ones((2, 2)),
}


class Row(NamedTuple):
    """One argument: the call, what the first line has to say beside it, what is tried, what must pass."""

    call: Callable[[Any], Any]
    allowed: str
    kinds: dict[str, Any]
    fine: tuple[str, ...] = ()  # kinds that this argument may be
    good: tuple[Any, ...] = ()
    wrong: tuple[Any, ...] = ()  # tried beside the kinds: the first values beyond its own range
    called: str = ""  # what the sentence calls it, where that is not its name


def scaled(**options):
    return cgalr_jax.scale_by_connectome(**{"example": EXAMPLE, **PLAIN, **options})


def optimizer(**options):
    return cgalr_jax.cgalr(**{"learning_rate": 0.1, "example": EXAMPLE, **PLAIN, **options})


def custom(read):
    """A signal of the user's own."""
    return signals.Signal(read, lambda before, after: jnp.abs(before - after).sum(), 1.0)


TX = scaled()


def updated(measure):
    activations = {"hidden": X @ PARAMS["w"]}
    return TX.update(PARAMS, TX.init(PARAMS), PARAMS, activations=activations, measure=measure)


def rescheduled(measure):
    schedule = cgalr_jax.connectome_schedule(0.1, EXAMPLE)
    return schedule.update(schedule.init(), activations={"hidden": X @ PARAMS["w"]}, measure=measure)


MEASURE = (True, False, np.True_, None)


def found(**options):
    given = {"step": lambda state, rate: state, "state": PARAMS, "probe": lambda p: {"hidden": X @ p["w"]}}
    return cgalr_jax.find_learning_rate(**{**given, **options})


def integers(call, least, **more):
    fine = ("zero",) * (least <= 0)
    good = tuple(kind(max(least, 6)) for kind in (int, np.int64, np.uint8, jnp.int32, np.array))
    row = Row(call, f"an integer of at least {least}", NUMBERS, fine, good, wrong=(least - 1,))
    return row._replace(**more)


def numbers(call, allowed, fine=(), good=0.5, wrong=()):
    goods = tuple(kind(good) for kind in (float, np.float32, np.float64, jnp.float32, np.array))
    return Row(call, allowed, NUMBERS, fine, goods, wrong)


def records(call, kind, fine=(), good=()):
    return Row(call, f"must be a {kind}", RECORDS, fine, good)


def functions(call, signature, fine=(), good=()):
    return Row(call, signature, FUNCTIONS, fine, good)


def flags(call, good=(True, False, np.True_)):
    return Row(call, "True or False", FLAGS, (), good)


def words(call, allowed, good=()):
    return Row(call, allowed, WORDS, (), good)


def drawn(name, *arguments, ax=AX, **options):
    return lambda value: getattr(plotting, name)(*(value if a is ... else a for a in arguments), **{
        key: value if option is ... else option for key, option in options.items()
    })  # fmt: skip


EXAMPLES = {
    **TREES,
    "a list": [],
    "no layers": {},
    "one axis": {"a": jnp.ones(3)},
    "a truth value in it": {"a": True},
    "a text in it": {"a": "many"},
    "one unit": {"a": 1},
    "minus": {"a": -4},
    "a fraction": {"a": 2.5},
    "NaN": math.nan,
    "an array of a fraction": {"a": jnp.float32(3)},
    "an array of a truth value": {"a": np.array(True)},
    "a masked number": {"a": np.ma.array(3, mask=True)},
    "too many units": {"a": 2**31},
    "of NumPy, too many": np.uint64(2**64 - 1),
}
SAMPLES = {
    "a text": "abc",
    "a function": function,
    "no rows": np.zeros((0, 4)),
    "an object": object(),
    "texts": np.array(["a"]),
    "objects": np.array([None]),
    "a date": np.datetime64("2020-01-01"),
    "no arrays": {},
}
MAPPED = {
    "a list": ["data"],
    "an array": np.ones(3),
    "a tuple of lists": (["data"],),
    "a mapping": {},
    "the place of an axis": 0,  # which JAX takes for one of each array
    "a place among names": ("data", np.int64(1)),
}
SCHEDULES = {**NUMBERS, "a function": too_many}
FORGOTTEN = {"an optimizer, not called": optax.adam, "of complex rates": lambda step: step * 1j}
OPTIMIZERS = {**FUNCTIONS, "an optimizer": optax.sgd(0.1)}
TRANSFORMATION = {
    "example": Row(
        lambda v: scaled(example=v),
        "",
        EXAMPLES,
        ("a number", "an array"),
        good=(3, {"a": np.int64(3)}, {"a": jnp.int32(3), "b": np.array(3)}, X, [3, 4]),
    ),
    "samples": Row(
        lambda v: scaled(samples=v), "an example of the batches", SAMPLES, good=(None, X, {"x": X, "n": 3})
    ),
    "every": integers(lambda v: scaled(every=v), 1),
    "controller": records(lambda v: scaled(controller=v), "cgalr_jax.Controller", ("nothing",), (GATE,)),
    "signal": records(lambda v: scaled(signal=v), "cgalr_jax.Signal", ("nothing",), (signals.births(),)),
    "max_units": integers(lambda v: scaled(max_units=v), 2),
    "max_share": numbers(lambda v: scaled(max_share=v), "positive and finite", ("nothing", "a fraction")),
    "axis_name": Row(lambda v: scaled(axis_name=v), "a mapped axis", MAPPED, good=("data", ("a", "b"), 3.5)),
}
LEARNING_RATES = ("zero", "a fraction", "too small for float32")


# Trees that do not go with `PARAMS`.
UNLIKE = {"other names": {"v": PARAMS["w"]}, "another shape": {"w": jnp.ones(3)}, "texts": {"w": "abc"}}


def rate_row(call):
    kinds = {key: value for key, value in SCHEDULES.items() if key != "too small for float32"}
    return Row(call, "a schedule", kinds, ("a fraction",), (0.1, np.float32(0.1), jnp.float32(0.1)))


def answer_row(call):
    """A schedule that can be called, and returns what is no rate."""
    return Row(call, "must return a number", FORGOTTEN, called="learning_rate")


def read_rows(call):
    return {
        "read of signal": functions(call, "(layers, params) -> reading")._replace(called="signal.read must"),
        "read of signal, traced": Row(
            call,
            "a function that JAX can trace",
            {
                "of NumPy": lambda layers, params: np.linalg.norm(layers["hidden"]),
                "of Python": lambda layers, params: max(layers["hidden"].sum(), 0.0),
            },
            good=(lambda layers, params: layers["hidden"].mean(), lambda *both: both[0]["hidden"]),
            called="signal.read must",
        ),
    }


OVER = "'min', 'median', 'max' or 'pooled'"
TOPOLOGY = "'deaths', 'barcode' or 'wasserstein'"
SET_POINT = "positive and finite"


def signal_rows(factory):
    return {
        "over": words(lambda v: factory(v), OVER, ("min", "median", "pooled")),
        "set_point": numbers(lambda v: factory(set_point=v), SET_POINT, ("nothing", "a fraction")),
    }


def array_row(call, allowed="", fine=(), good=(), called=""):
    return Row(call, allowed, ARRAYS, fine, good, called)


def matrix(call, called="connectome"):
    good = (SQUARE, SQUARE.tolist(), jnp.asarray(SQUARE, jnp.bfloat16), SQUARE > 0.5)
    return array_row(call, "", (), good, called)


METHOD, SYMMETRISE = "'auto', 'prim' or 'boruvka'", (True, False, np.True_)
DISTANCES = {
    "order": Row(
        lambda v: topology.top_distance(SORTED, SORTED, order=v),
        "1, 2 or infinity",
        NUMBERS,
        ("infinite",),
        (1, np.float32(2), jnp.inf),
    ),
    "normalise": flags(lambda v: topology.top_distance(SORTED, SORTED, normalise=v)),
}
RIPS = {
    "maxdim": lambda call: Row(call, "an integer of at least 0", NUMBERS, ("zero",)),
    "metric": lambda call: words(call, "'correlation' or 'reciprocal'"),
    "order": lambda call: Row(call, "in [1, infinity)", NUMBERS, ("a fraction",)),
    "internal_p": lambda call: Row(call, "1, 2 or infinity", NUMBERS, ("infinite",)),
}
MODELS = {"nothing": None, "a text": "mlp", "a number": 3, "a class": nnx.Linear, "the other Flax": None}
CHOICES = {
    "layers": Row(
        lambda v: capture.nnx_probe(NNX, layers=v),
        "a list of names and types",
        {"a text": "a", "a number": 3, "a class": nnx.Linear, "instances": [3], "a scalar": jnp.ones(())},
    ),
    "activation": Row(
        lambda v: capture.nnx_probe(NNX, activation=v),
        "activation(array) -> array",
        {"a text": "relu", "a number": 3, "an array": X, "a function of other arguments": too_many},
    ),
    "forward": Row(
        lambda v: capture.linen_probe(LINEN, forward=v),
        "forward(model, samples)",
        {"a text": "f", "a number": 3, "an array": X, "a function of other arguments": too_many},
    ),
    "logits": flags(lambda v: capture.nnx_probe(NNX, logits=v)),
    "pooled": flags(lambda v: capture.linen_probe(LINEN, pooled=v)),
}
LIST_OF_MODELS = {"nothing": None, "a text": "mlp", "a number": 3, "a class": linen.Dense}
COLLECTIONS = {"a text": "params", "a number": 3, "an array": X, "a list": [X]}
LABELS = {"a number": 3, "nothing": None, "a list": ["loss"], "an array": X}

TABLE: dict[str, dict[str, Row]] = {
    "scale_by_connectome": {
        **TRANSFORMATION,
        **read_rows(lambda read: scaled(signal=custom(read)).init(PARAMS)),
    },
    "cgalr": {
        "learning_rate": rate_row(lambda v: cgalr_jax.cgalr(v, EXAMPLE)),
        "what learning_rate returns": answer_row(lambda v: cgalr_jax.cgalr(v, EXAMPLE)),
        "optimizer": Row(
            lambda v: optimizer(optimizer=v),
            "learning_rate -> optax.GradientTransformation",
            {**OPTIMIZERS, "no optimizer": lambda rate: rate},
            ("nothing",),
            (optax.adamw,),
        ),
        "momentum": numbers(
            lambda v: optimizer(momentum=v), "None or in [0, 1)", ("nothing", "zero"), wrong=(1.0,)
        ),
        **{
            name: row._replace(call=lambda v, name=name: optimizer(**{name: v}))
            for name, row in TRANSFORMATION.items()
        },
        "every": integers(lambda v: optimizer(every=v), 1)._replace(fine=("nothing",)),
        "steps": integers(lambda v: cgalr_jax.cgalr(0.1, EXAMPLE, steps=v), 1)._replace(fine=("nothing",)),
    },
    "connectome_schedule": {
        "learning_rate": rate_row(lambda v: cgalr_jax.connectome_schedule(v, EXAMPLE)),
        **{
            name: row._replace(
                call=lambda v, name=name: cgalr_jax.connectome_schedule(0.1, **{"example": EXAMPLE, name: v})
            )
            for name, row in TRANSFORMATION.items()
            if name != "max_share"
        },
        "every": integers(lambda v: cgalr_jax.connectome_schedule(0.1, EXAMPLE, every=v), 1)._replace(
            fine=("nothing",)
        ),
        "steps": integers(lambda v: cgalr_jax.connectome_schedule(0.1, EXAMPLE, steps=v), 1)._replace(
            fine=("nothing",)
        ),
        "max_share": Row(
            lambda v: cgalr_jax.connectome_schedule(0.1, EXAMPLE, max_share=v),
            "must be left out",
            NUMBERS,
            ("nothing",),
            (None,),
        ),
    },
    "calibrated": {
        "schedule": functions(
            lambda v: cgalr_jax.calibrated(v),
            "step -> learning rate",
            ("nothing", "a function of other arguments"),
            (optax.constant_schedule(1.0),),
        ),
        "target": numbers(lambda v: cgalr_jax.calibrated(target=v), "positive and finite", ("a fraction",)),
        "start": numbers(lambda v: cgalr_jax.calibrated(start=v), "in [1e-6, 1]", wrong=(9e-7, 1.1)),
        "steps": integers(lambda v: cgalr_jax.calibrated(steps=v), 1)._replace(fine=("nothing",)),
    },
    "hysteresis_gate": {
        "enter": numbers(
            lambda v: cgalr_jax.hysteresis_gate(enter=v), "positive and finite", ("a fraction",)
        ),
        "leave": numbers(lambda v: cgalr_jax.hysteresis_gate(leave=v), "in [0, enter]", ("zero",)),
        "up": numbers(
            lambda v: cgalr_jax.hysteresis_gate(up=v), "at least 1 and finite", ("a fraction",), 1.5
        ),
        "down": numbers(lambda v: cgalr_jax.hysteresis_gate(down=v), "in (0, 1]"),
        "floor": numbers(lambda v: cgalr_jax.hysteresis_gate(floor=v), "in (0, 1]"),
        "ceiling": numbers(
            lambda v: cgalr_jax.hysteresis_gate(ceiling=v), "at least 1 and finite", ("a fraction",), 1.5
        ),
        "window": integers(lambda v: cgalr_jax.hysteresis_gate(window=v), 5),
    },
    "robbins_monro_bounds": {
        "lower": numbers(
            lambda v: cgalr_jax.robbins_monro_bounds(v, 3.0, tau=9), "positive and finite", ("a fraction",)
        ),
        "upper": numbers(
            lambda v: cgalr_jax.robbins_monro_bounds(0.1, v, tau=9),
            "finite and at least lower",
            ("a fraction",),
        ),
        "tau": numbers(
            lambda v: cgalr_jax.robbins_monro_bounds(0.1, 1.0, tau=v), "positive and finite", ("a fraction",)
        ),
        "exponent": numbers(
            lambda v: cgalr_jax.robbins_monro_bounds(0.1, 1.0, tau=9, exponent=v), "in (1/2, 1]", good=0.75
        ),
    },
    "envelope": {
        "controller": records(controllers.envelope, "cgalr_jax.Controller", good=(GATE,)),
        "bounds": Row(
            lambda v: controllers.envelope(GATE, v),
            "",
            {
                **FUNCTIONS,
                "NaN": lambda s: (math.nan, 1.0),
                "crossed": lambda s: (2.0, 1.0),
                "negative": lambda s: (-1.0, 1.0),
                "one": lambda s: 1.0,
                "infinite": lambda s: (0.1, math.inf),
            },
            ("nothing",),
            (lambda s: (jnp.float32(0.1), 1),),
        ),
    },
    "robust_z_score": {
        "value": array_row(
            lambda v: controllers.robust_z_score(v, SORTED, 2),
            "",
            ("a number",),
            (np.float32(1), jnp.float32(1)),
        ),
        "history": array_row(lambda v: controllers.robust_z_score(1.0, v, 2), "", (), (SORTED,)),
        "count": array_row(
            lambda v: controllers.robust_z_score(1.0, SORTED, v),
            "",
            ("a number",),
            (np.int32(1), jnp.int32(1)),
        ),
        "min_count": integers(lambda v: controllers.robust_z_score(1.0, SORTED, 2, min_count=v), 0),
    },
    "schmitt_trigger": {
        "mode": array_row(
            lambda v: controllers.schmitt_trigger(v, 1.0, enter=1.0, leave=0.5),
            "",
            ("a number",),
            (0, jnp.int32(1)),
        ),
        "z": array_row(
            lambda v: controllers.schmitt_trigger(0, v, enter=1.0, leave=0.5),
            "",
            ("a number",),
            (0.5, jnp.float32(1)),
        ),
        "enter": numbers(
            lambda v: controllers.schmitt_trigger(0, 1.0, enter=v, leave=0.1),
            "positive and finite",
            ("a fraction",),
        ),
        "leave": numbers(
            lambda v: controllers.schmitt_trigger(0, 1.0, enter=1.0, leave=v), "in [0, enter]", ("zero",)
        ),
    },
    "find_learning_rate": {
        "step": functions(lambda v: found(step=v), "step(state, learning_rate) -> state"),
        "probe": functions(lambda v: found(probe=v), "probe(state) -> activations"),
        **{
            f"what {name} does": Row(
                lambda v, name=name: found(**{name: v}),
                "a function that JAX can trace",
                {"with NumPy": lambda state: {"hidden": np.tanh(state["w"].__array__())}},
                called=name,
            )
            for name in ("probe", "params")
        },
        # A reading that never moves: good ones end in an error about the rates.
        **{
            name: row._replace(good=())
            for name, row in read_rows(lambda read: found(signal=custom(read))).items()
        },
        "signal": records(lambda v: found(signal=v), "cgalr_jax.Signal", ("nothing",)),
        "every": integers(lambda v: found(every=v), 1, good=()),
        "lowest": numbers(lambda v: found(lowest=v), "positive and finite", ("a fraction",))._replace(
            good=()
        ),
        "highest": numbers(
            lambda v: found(highest=v), "finite and above lowest", ("a fraction",), wrong=(1e-5, 1e-6)
        )._replace(good=()),
        "params": functions(lambda v: found(params=v), "params(state) -> parameters, or None", ("nothing",)),
    },
    "polynomial_averaging": {
        "eta": numbers(
            lambda v: cgalr_jax.polynomial_averaging(v), "finite and at least 0", ("zero", "a fraction")
        ),
    },
    "averaged_params": {
        "opt_state": Row(
            lambda v: cgalr_jax.averaged_params(v, PARAMS),
            "one state of polynomial_averaging",
            TREES,
            good=(AVERAGED, [AVERAGED]),
        ),
        "params": Row(
            lambda v: cgalr_jax.averaged_params(AVERAGED, v),
            "those that polynomial_averaging averages",
            {k: TREES[k] for k in ("nothing", "an array")},
            good=(PARAMS,),
        ),
    },
    "is_measurement_step": {
        "step": integers(cgalr_jax.is_measurement_step, 0),
        "every": integers(lambda v: cgalr_jax.is_measurement_step(0, v), 1)._replace(fine=("nothing",)),
        "steps": Row(
            lambda v: cgalr_jax.is_measurement_step(3, steps=v, opt_state=STATE),
            "",
            NUMBERS,
            good=(60, np.int64(60), jnp.int32(60)),
        ),
        "opt_state": Row(
            lambda v: cgalr_jax.is_measurement_step(3, 10, steps=60, opt_state=v), "", TREES, good=(STATE,)
        ),
        "opt_state, at a step that is measured anyway": Row(
            lambda v: cgalr_jax.is_measurement_step(0, steps=60, opt_state=v),
            "",
            {**TREES, "of a gate": scaled(controller=GATE).init(PARAMS)},
            good=(STATE,),
            called="opt_state",
        ),
    },
    # What is no argument of a public function, but of the updates that they return.
    "update": {
        "measure": Row(
            updated, "True or False, known when the step is compiled", FLAGS, ("nothing",), MEASURE
        ),
    },
    "ConnectomeSchedule.update": {
        "measure": Row(
            rescheduled, "True or False, known when the step is compiled", FLAGS, ("nothing",), MEASURE
        ),
    },
    "metrics": {
        "opt_state": Row(
            cgalr_jax.metrics, "the state of scale_by_connectome", TREES, good=(STATE, {"a": STATE})
        )
    },
    "check_checkpoint": {
        "stored": Row(lambda v: cgalr_jax.check_checkpoint(v, STATE), "as many states", TREES, good=(STATE,)),
        "opt_state": Row(
            lambda v: cgalr_jax.check_checkpoint(STATE, v),
            "the state of scale_by_connectome",
            TREES,
            good=(STATE,),
        ),
    },
    "frobenius": signal_rows(signals.frobenius),
    "births": {
        **signal_rows(signals.births),
        "sample": integers(lambda v: signals.births(sample=v), 2)._replace(fine=("nothing",)),
    },
    "deaths": {
        **signal_rows(signals.deaths),
        "sample": integers(lambda v: signals.deaths(sample=v), 3)._replace(fine=("nothing",)),
        "normalise": flags(lambda v: signals.deaths(normalise=v)),
    },
    "barcode": {
        **signal_rows(signals.barcode),
        "sample": integers(lambda v: signals.barcode(sample=v), 3)._replace(fine=("nothing",)),
        "normalise": flags(lambda v: signals.barcode(normalise=v)),
    },
    "update_norm": {"set_point": signal_rows(lambda over=None, **o: signals.update_norm(**o))["set_point"]},
    "relative_update": {
        "set_point": signal_rows(lambda over=None, **o: signals.relative_update(**o))["set_point"]
    },
    "largest_share": {
        "updates": Row(
            lambda v: signals.largest_share(v, PARAMS),
            "",
            {kind: tree for kind, tree in (TREES | UNLIKE).items() if kind != "nothing"}
            | {"without updates": {}},
            good=(PARAMS, {"w": None}, {"w": np.ones((4, 3))}),
        ),
        "params": Row(
            lambda v: signals.largest_share(PARAMS, v),
            "",
            TREES | UNLIKE,
            called="updates",
        ),
    },
    "Signal.set_point_at": {"every": integers(signals.hybrid().set_point_at, 1)},
    "hybrid": {
        "connectome": records(
            lambda v: signals.hybrid(connectome=v), "cgalr_jax.Signal", ("nothing",), (signals.births(),)
        ),
        "update": records(
            lambda v: signals.hybrid(update=v), "cgalr_jax.Signal", ("nothing",), (signals.update_norm(),)
        ),
    },
    "weigh": {
        "motion": array_row(
            lambda v: signals.weigh(v, 1.0),
            "",
            ("a number", "another rank", "no entries"),
            (0.5, jnp.float32(1)),
        ),
        "change": array_row(
            lambda v: signals.weigh(1.0, v),
            "",
            ("a number", "another rank", "no entries"),
            (0.5, jnp.float32(1)),
        ),
        "share": numbers(lambda v: signals.weigh(1.0, 1.0, v), "in [0, 1]", ("zero",)),
    },
    "from_connectomes": {
        "summarise": functions(
            lambda v: signals.from_connectomes(v, topology.top_distance, "min", None, 1.0),
            "connectome -> summary, or None",
            ("nothing",),
        ),
        "compare": functions(
            lambda v: signals.from_connectomes(topology.compute_births, v, "min", None, 1.0),
            "(before, after) -> distance",
        ),
        "over": words(
            lambda v: signals.from_connectomes(topology.compute_births, topology.top_distance, v, None, 1.0),
            OVER,
            ("min",),
        ),
        "set_point": numbers(
            lambda v: signals.from_connectomes(topology.compute_births, topology.top_distance, "min", v, 1.0),
            SET_POINT,
            ("nothing", "a fraction"),
        ),
        "choose": functions(
            lambda v: signals.from_connectomes(
                topology.compute_births, topology.top_distance, "min", None, 1.0, v
            ),
            "number of units -> indices",
            ("nothing",),
        ),
        "default": numbers(
            lambda v: signals.from_connectomes(
                topology.compute_births, topology.top_distance, "min", None, v
            ),
            SET_POINT,
            ("a fraction",),
        ),
    },
    "functional_connectome": {
        "units": array_row(
            topology.functional_connectome, "", (), (X, X.tolist(), jnp.asarray(X, jnp.bfloat16))
        ),
        "axis_name": Row(
            lambda v: topology.functional_connectome(X, v),
            "",
            {**MAPPED, "an axis that is not there": "nosuch"},
            good=(None,),
        ),
    },
    "init_moments": {"units": integers(topology.init_moments, 1)},
    "update_moments": {
        "moments": records(
            lambda v: topology.update_moments(v, SQUARE), "cgalr_jax.topology.Moments", good=(MOMENTS,)
        ),
        "units": array_row(lambda v: topology.update_moments(MOMENTS, v), "", (), (SQUARE,)),
    },
    "merge_moments": {
        "a": records(
            lambda v: topology.merge_moments(v, MOMENTS), "cgalr_jax.topology.Moments", good=(MOMENTS,)
        ),
        "b": Row(
            lambda v: topology.merge_moments(MOMENTS, v),
            "",
            {**RECORDS, "of other units": topology.init_moments(4)},
            good=(MOMENTS,),
        ),
    },
    "gather_moments": {
        "moments": records(lambda v: topology.gather_moments(v, "data"), "cgalr_jax.topology.Moments"),
        "axis_name": Row(
            lambda v: topology.gather_moments(MOMENTS, v),
            "",
            {**MAPPED, "an axis that is not there": "nosuch"},
        ),
    },
    "connectome_from_moments": {
        "moments": records(topology.connectome_from_moments, "cgalr_jax.topology.Moments", good=(MOMENTS,))
    },
    "spanning_tree": {
        "connectome": matrix(topology.spanning_tree),
        "method": words(lambda v: topology.spanning_tree(SQUARE, v), METHOD, ("prim",)),
        "symmetrise": flags(lambda v: topology.spanning_tree(SQUARE, symmetrise=v)),
    },
    "compute_births": {
        "connectome": matrix(topology.compute_births),
        "method": words(lambda v: topology.compute_births(SQUARE, v), METHOD, ("boruvka",)),
        "symmetrise": flags(lambda v: topology.compute_births(SQUARE, symmetrise=v)),
    },
    "compute_barcode": {
        "connectome": matrix(topology.compute_barcode),
        "bins": Row(
            lambda v: topology.compute_barcode(SQUARE, v),
            "an integer from 1 to 1024",
            {**NUMBERS, "too many": 1025},
            ("nothing",),
            (np.int64(2), jnp.int32(2), None),
        ),
        "method": words(lambda v: topology.compute_barcode(SQUARE, method=v), METHOD, ("auto",)),
        "symmetrise": flags(lambda v: topology.compute_barcode(SQUARE, symmetrise=v)),
    },
    "top_distance": {
        "births_a": array_row(
            lambda v: topology.top_distance(v, SORTED), "", (), (SORTED, [0.1, 0.2], (0, 1))
        ),
        "births_b": array_row(lambda v: topology.top_distance(SORTED, v), "", (), (SORTED, [0.1, 0.2, 0.3])),
        **DISTANCES,
    },
    "barcode_distance": {
        "barcode_a": records(
            lambda v: topology.barcode_distance(v, BARS), "cgalr_jax.topology.Barcode", good=(BARS,)
        ),
        "barcode_b": records(
            lambda v: topology.barcode_distance(BARS, v), "cgalr_jax.topology.Barcode", good=(BARS,)
        ),
        "order": DISTANCES["order"]._replace(call=lambda v: topology.barcode_distance(BARS, BARS, order=v)),
        "normalise": flags(lambda v: topology.barcode_distance(BARS, BARS, normalise=v)),
    },
    "frobenius_distance": {
        "connectome_a": matrix(lambda v: topology.frobenius_distance(v, SQUARE), "connectome_a"),
        "connectome_b": matrix(lambda v: topology.frobenius_distance(SQUARE, v), "connectome_b"),
    },
    "check_layers": {
        "layers": Row(layers.check_layers, "a mapping of names to arrays", TREES, good=({"a": X},)),
    },
    "layer_units": {
        "activation": array_row(layers.layer_units, "", ("complex", "another rank", "no entries"), (X,)),
        "max_samples": integers(lambda v: layers.layer_units(X, v), 1),
    },
    "layout_of": {
        "example": TRANSFORMATION["example"]._replace(call=lambda v: layers.layout_of(v, 16)),
        "max_units": integers(lambda v: layers.layout_of(EXAMPLE, v), 2),
    },
    "measured_layers": {
        "activations": Row(
            lambda v: layers.measured_layers(v, LAYOUT),
            "",
            {
                **TREES,
                "another layer": {"b": X[:, :3]},
                "other units": {"hidden": X},
                "a text in it": {"hidden": "abc"},
            },
            good=({"hidden": X[:, :3]},),
        ),
        "layout": records(
            lambda v: layers.measured_layers({"hidden": X[:, :3]}, v),
            "cgalr_jax.layers.Layout",
            good=(LAYOUT,),
        ),
    },
    "pooled_units": {
        "layers": Row(
            layers.pooled_units,
            "",
            {
                **RECORDS,
                "one axis": {"a": jnp.ones(3)},
                "of other samples": {"a": X, "b": X[:3]},
                "texts": {"a": "b"},
                "complex": {"a": X * 1j},
            },
            good=({"a": X},),
        )
    },
    "Layers": {"activations": Row(layers.Layers, "a mapping of names to arrays", TREES, good=({"a": X},))},
    "vietoris_rips": {
        "connectome": array_row(rips.vietoris_rips, "", (), (SQUARE,)),
        "maxdim": RIPS["maxdim"](lambda v: rips.vietoris_rips(SQUARE, v)),
        "metric": RIPS["metric"](lambda v: rips.vietoris_rips(SQUARE, metric=v)),
    },
    "diagram_distance": {
        "diagram_a": array_row(
            lambda v: rips.diagram_distance(v, [[0, 1]]), "", (), ([[0, 1]], np.zeros((0, 2)))
        ),
        "diagram_b": array_row(
            lambda v: rips.diagram_distance([[0, 1]], v), "", (), ([[0, 1]], np.zeros((0, 2)))
        ),
        "order": RIPS["order"](lambda v: rips.diagram_distance([[0, 1]], [[0, 1]], v)),
        "internal_p": RIPS["internal_p"](lambda v: rips.diagram_distance([[0, 1]], [[0, 1]], 2, v)),
    },
    "wasserstein_distance": {
        "connectome_a": array_row(lambda v: rips.wasserstein_distance(v, SQUARE)),
        "connectome_b": array_row(lambda v: rips.wasserstein_distance(SQUARE, v)),
        "mindim": Row(
            lambda v: rips.wasserstein_distance(SQUARE, SQUARE, mindim=v),
            "an integer from 0 to 1",
            NUMBERS,
            ("zero",),
            wrong=(2,),
        ),
        "normalise": flags(lambda v: rips.wasserstein_distance(SQUARE, SQUARE, normalise=v), ()),
        **{
            name: row(lambda v, name=name: rips.wasserstein_distance(SQUARE, SQUARE, **{name: v}))
            for name, row in RIPS.items()
        },
    },
    "levelled": {
        "distances": array_row(stopping.levelled, "", ("another rank", "no entries"), (SORTED, [[1, 2]])),
        "window": integers(lambda v: stopping.levelled(SORTED, window=v), 1),
        "tolerance": numbers(lambda v: stopping.levelled(SORTED, tolerance=v), "in (0, 1)", wrong=(1.0,)),
    },
    "tree_order": {
        "tree": Row(plotting.tree_order, "edges i32[P - 1, 2] and weights f32[P - 1]", RECORDS, good=(TREE,))
    },
    "plot_connectome": {
        "ax": Row(drawn("plot_connectome", ..., SQUARE), "matplotlib Axes", RECORDS),
        "matrix": array_row(drawn("plot_connectome", AX, ...), "", (), (SQUARE,)),
        "layers": Row(
            drawn("plot_connectome", AX, SQUARE, layers=...),
            "",
            {"a text": "a", "a list": [3], "too few": {"a": 2}, "negative": {"a": 4, "b": -1}},
            good=({"a": np.int64(3)}, None),
        ),
        "order": Row(
            drawn("plot_connectome", AX, SQUARE, order=...),
            "",
            {"a text": "a", "twice": [0, 0, 1], "a function": function, "a number": 3},
            good=([2, 1, 0], np.array([2.0, 1.0, 0.0]), None),
        ),
        "colorbar": flags(drawn("plot_connectome", AX, SQUARE, colorbar=...)),
    },
    "plot_film": {
        "axes": Row(drawn("plot_film", ..., [SQUARE]), "matplotlib Axes", RECORDS),
        "connectomes": Row(
            drawn("plot_film", [AX], ...),
            "",
            {"nothing": None, "a text": "a", "a number": 3, "texts": ["a"], "too many": [SQUARE, SQUARE]},
            good=([SQUARE], SQUARE[None]),
            called="connectomes|axes, connectomes",
        ),
        "titles": Row(
            drawn("plot_film", [AX], [SQUARE], titles=...),
            "",
            {"a text": "a", "a number": 3, "too many": ["a", "b"]},
            good=(["a"], ("b",)),
            called="titles|axes, connectomes",
        ),
        "layers": Row(
            drawn("plot_film", [AX], [SQUARE], layers=...),
            "",
            {"a text": "a", "a list": [3], "too few": {"a": 2}},
        ),
        "colorbar": flags(drawn("plot_film", [AX], [SQUARE], colorbar=...)),
    },
    "plot_barcode": {
        "ax": Row(drawn("plot_barcode", ..., BARS), "matplotlib Axes", RECORDS),
        "bars": Row(drawn("plot_barcode", AX, ...), "", RECORDS, good=(BARS,)),
    },
    "plot_betti_curve": {
        "ax": Row(drawn("plot_betti_curve", ..., SORTED), "matplotlib Axes", RECORDS),
        "births": array_row(drawn("plot_betti_curve", AX, ...), "", (), (SORTED, [0.1])),
        "color": Row(
            drawn("plot_betti_curve", AX, SORTED, color=...),
            "a colour",
            {"nothing": None, "a word": "nosuch", "a number": 3},
            good=("red", (0, 0, 1)),
        ),
    },
    "plot_spanning_tree": {
        "ax": Row(drawn("plot_spanning_tree", ..., TREE), "matplotlib Axes", RECORDS),
        "tree": Row(
            drawn("plot_spanning_tree", AX, ...),
            "edges i32[P - 1, 2] and weights f32[P - 1]",
            RECORDS,
            good=(TREE,),
        ),
        "layers": Row(
            drawn("plot_spanning_tree", AX, TREE, layers=...),
            "",
            {"a text": "a", "a list": [3], "too few": {"a": 2}},
        ),
    },
    "plot_training_trace": {
        "axes": Row(
            drawn("plot_training_trace", ..., TRACE),
            "",
            {**RECORDS, "two": [AX, AX], "numbers": [1, 2, 3]},
            good=(AXES, list(AXES)),
        ),
        "trace": Row(
            drawn("plot_training_trace", AXES, ...),
            "",
            {
                **{k: v for k, v in RECORDS.items() if k != "a mapping"},
                "texts": {"a": ["b"]},
                "ragged": {"a": [1], "b": [1, 2]},
            },
            good=(TRACE, {}, {"loss": [1, 2]}),
        ),
        "loss": Row(
            drawn("plot_training_trace", AXES, TRACE, loss=...),
            "a key of the trace",
            LABELS,
            good=("nosuch",),
        ),
        "prefix": Row(drawn("plot_training_trace", AXES, TRACE, prefix=...), "a key of the trace", LABELS),
        "base_learning_rate": Row(
            drawn("plot_training_trace", AXES, TRACE, base_learning_rate=...),
            "",
            {
                "a text": "a",
                "a function": function,
                "other rows": np.ones(4),
                "a negative": -1.0,
                "not a number": math.nan,
            },
            good=(0.1, np.ones(3), jnp.float32(0.1)),
        ),
        "set_point": numbers(
            drawn("plot_training_trace", AXES, TRACE, set_point=...), SET_POINT, ("nothing", "a fraction")
        ),
        "bounds": functions(
            drawn("plot_training_trace", AXES, TRACE, bounds=...), "step -> (low, high)", ("nothing",)
        ),
    },
    "plot_learning_rate_curve": {
        "ax": Row(drawn("plot_learning_rate_curve", ..., CURVE), "matplotlib Axes", RECORDS),
        "curve": records(
            drawn("plot_learning_rate_curve", AX, ...), "cgalr_jax.LearningRateCurve", good=(CURVE,)
        ),
    },
    "TraceRecorder": {
        "jsonl": Row(lambda v: recorder.TraceRecorder(jsonl=v), "a file", PATHS, ("nothing",)),
        "tensorboard": Row(lambda v: recorder.TraceRecorder(tensorboard=v), "a folder", PATHS, ("nothing",)),
    },
    "TraceRecorder.save": {"path": Row(recorder.TraceRecorder().save, "a file", PATHS)},
    "TraceRecorder.load": {"path": Row(recorder.TraceRecorder.load, "a file", PATHS)},
    "TraceRecorder.report": {"path": Row(recorder.TraceRecorder().report, "a file", PATHS)},
    "TraceRecorder.to_tensorboard": {
        "directory": Row(recorder.TraceRecorder().to_tensorboard, "a folder", PATHS),
        "step": Row(lambda v: recorder.TraceRecorder().to_tensorboard("nosuch", step=v), "a key", LABELS),
    },
    "TraceRecorder.summary": {"keys": Row(recorder.TraceRecorder().summary, "strings", LABELS)},
    "TraceRecorder.record": {
        "metrics": Row(
            recorder.TraceRecorder().record,
            "a mapping",
            {"a text": "a", "a number": 3, "a list": [1], "an array": X},
            good=(None, {}),
        ),
        "scalars": Row(
            lambda v: recorder.TraceRecorder().record(loss=v),
            "",
            {
                "nothing": None,
                "a text": "a",
                "an array": X,
                "complex": 1j,
                "a function": function,
                "masked": np.ma.masked,
                "a random key": jax.random.key(0),
                "ragged": [[1], [1, 2]],
            },
            good=(1, 2**70, True, np.float16(1), jnp.bfloat16(1)),
            called="loss",
        ),
    },
    "nnx_probe": {
        "model": Row(capture.nnx_probe, "flax.nnx.Module", {**MODELS, "the other Flax": LINEN}, good=(NNX,)),
        **CHOICES,
    },
    "linen_probe": {
        "model": Row(
            capture.linen_probe, "flax.linen.Module", {**MODELS, "the other Flax": NNX}, good=(LINEN,)
        ),
        "variables": Row(
            lambda v: capture.linen_probe(LINEN, v),
            "a mapping of collections",
            COLLECTIONS,
            good=(None, VARIABLES),
        ),
        **CHOICES,
    },
    "nnx_samples": {
        "model": Row(
            lambda v: capture.nnx_samples(v, X), "flax.nnx.Module", {**MODELS, "the other Flax": LINEN}
        )
    },
    "linen_samples": {
        "variables": Row(
            lambda v: capture.linen_samples(v, X), "a mapping of collections", COLLECTIONS, good=(VARIABLES,)
        )
    },
    "nnx_forward": {
        "model": Row(
            lambda v: capture.nnx_forward(v, X), "flax.nnx.Module", {**MODELS, "the other Flax": LINEN}
        ),
        **CHOICES,
    },
    "linen_forward": {
        "model": Row(
            lambda v: capture.linen_forward(v, VARIABLES, X),
            "flax.linen.Module",
            {**MODELS, "the other Flax": NNX},
        ),
        "variables": Row(lambda v: capture.linen_forward(LINEN, v, X), "", COLLECTIONS),
        "mutable": Row(
            lambda v: capture.linen_forward(LINEN, VARIABLES, X, mutable=v),
            "a list of collections",
            {"a text": "batch_stats", "a truth value": True, "a number": 3, "numbers": [1], "an array": X},
            good=((), ["batch_stats"]),
        ),
        **CHOICES,
    },
    "example": {
        "model": Row(
            lambda v: capture.example(v, X),
            "a Flax model",
            {"nothing": None, "a text": "a", "a number": 3, "a class": linen.Dense},
            good=(NNX,),
        ),
        "a probe for model": Row(
            lambda v: capture.example(v, X),
            "probe(params, *samples) -> activations",
            {"without arguments": lambda: X, "a function of other arguments": too_many},
            good=(lambda params: params,),
            called="model",
        ),
    },
    "paper": {
        "learning_rate": Row(
            lambda v: presets.paper(v, EXAMPLE, steps_per_epoch=9),
            "a number",
            {k: v for k, v in NUMBERS.items() if k != "too small for float32"},
            ("zero", "a fraction"),
            (0.1, np.float32(0.1), jnp.float32(0.1)),
        ),
        "optimizer": Row(
            lambda v: presets.paper(0.1, EXAMPLE, steps_per_epoch=9, optimizer=v),
            "learning_rate -> optax.GradientTransformation",
            OPTIMIZERS,
            ("nothing",),
            (optax.adamw,),
        ),
        "steps_per_epoch": integers(lambda v: presets.paper(0.1, EXAMPLE, steps_per_epoch=v), 1),
        "topology": words(
            lambda v: presets.paper(0.1, EXAMPLE, steps_per_epoch=9, topology=v), TOPOLOGY, ("barcode",)
        ),
        "window": integers(lambda v: presets.paper(0.1, EXAMPLE, steps_per_epoch=9, window=v), 5),
        "tau": numbers(
            lambda v: presets.paper(0.1, EXAMPLE, steps_per_epoch=9, tau=v), SET_POINT, ("a fraction",)
        ),
        **{
            name: TRANSFORMATION[name]._replace(
                call=lambda v, name=name: presets.paper(
                    0.1, **{"example": EXAMPLE, "steps_per_epoch": 9, name: v}
                )
            )
            for name in ("example", "max_units", "axis_name")
        },
    },
    "paper_signal": {"topology": words(presets.paper_signal, TOPOLOGY, ("deaths", "barcode"))},
    "paper_gate": {
        "steps_per_epoch": integers(presets.paper_gate, 1),
        "window": integers(lambda v: presets.paper_gate(9, window=v), 5),
        "tau": numbers(lambda v: presets.paper_gate(9, tau=v), SET_POINT, ("a fraction",)),
    },
}

# What needs no row, and why.
EXEMPT = {
    "bounds of scale_by_connectome, cgalr": "deprecated",
    "window of scale_by_connectome, cgalr": "deprecated",
    "gain, patience, guard of calibrated": "deprecated",
    "measurements of find_learning_rate": "deprecated",
    "label of plot_betti_curve": "matplotlib takes anything for a label",
    "state of find_learning_rate": "any tree",
    "samples, rngs, arguments of capture": "whatever the model takes",
    "axis_name of Layers, measured_layers": "handed on to functional_connectome, which checks it",
    "kwargs of connectome_schedule": "those of scale_by_connectome, each in its rows",
}
# Records, types and constants: they hold what they are given, and whoever takes them checks.
HOLD = {
    "Barcode", "Bounds", "COLOR_MAP", "Choice", "ConnectomeState", "Controller", "LearningRateCurve",
    "Layout", "Measurement", "Moments", "Over", "Signal", "Topology", "TrainState", "Tree",
    "check_installed",
}  # fmt: skip


def public():
    """{name: callable} of all public modules."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(f"cgalr_jax{name}")
        for each in module.__all__:
            member = getattr(module, each)
            if callable(member) and each not in HOLD:
                found[each] = member
    return found


@pytest.mark.parametrize("name", public())
def test_the_table_is_complete(name):
    exempt = {argument.strip() for key in EXEMPT for argument in key.partition(" of ")[0].split(",")}
    arguments = inspect.signature(public()[name]).parameters
    tried = TABLE[name].keys() | ({"choice"} if "layers" in TABLE[name] else set())
    missing = arguments.keys() - tried - exempt - {"choice"}
    assert not missing, f"{name}: {missing}"


# Where a part of what came in is shown, or that it has none of what was asked for.
ANOTHER = (
    "layer",
    "shape",
    "axes",
    "none of",
    "got one w",
    "got 0",
    "got none",
    "without one",
    "got ''",
    "got 4",
    "equally many",
    "three or",
    "numbers",
    "bounds",
    "Axes",
)


def told(value):
    """Words of which one says what came in."""
    if isinstance(value, (jax.Array, np.ndarray)) and value.ndim:
        return str(value.shape), str(value.dtype), *ANOTHER
    if callable(value):
        return (
            "function",
            getattr(value, "__name__", "?"),
            type(value).__name__,
            "<class",
            "returns",
            *ANOTHER,
        )
    if isinstance(value, float) or getattr(value, "ndim", None) == 0:
        return str(value), repr(value), "()", str(getattr(value, "dtype", "?"))
    return repr(value)[:12], type(value).__name__, *ANOTHER


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


def answer(call, kind, value):
    """The first line of the ValueError that this kind of value must end in."""
    with pytest.raises(ValueError) as error:  # noqa: PT011, PT012, what it says is looked at by the test
        call(value)
        pytest.fail(f"{kind}: not refused")
    assert type(error.value) is ValueError, kind
    return str(error.value).splitlines()[0]


ROWS = [(name, argument, row) for name, rows in TABLE.items() for argument, row in rows.items()]
# Without giotto-ph, which Python 3.13 has none of, these end in an ImportError that says so.
NEED_GIOTTO = {"vietoris_rips", "wasserstein_distance"}
without_giotto = pytest.mark.skipif(importlib.util.find_spec("gph") is None, reason="needs giotto-ph")


def row_of(name, argument, *values):
    """A case of the table, which is skipped where giotto-ph is needed and missing."""
    marks = without_giotto if name in NEED_GIOTTO else ()
    return pytest.param(*values, id=f"{name}-{argument}", marks=marks)


@pytest.mark.parametrize(
    ("row", "argument"),
    [row_of(name, argument, row, argument) for name, argument, row in ROWS],
)
def test_a_wrong_argument(row, argument, empty, monkeypatch):
    monkeypatch.chdir(empty)  # whatever should be written
    names = (row.called or argument).split("|")
    wrong = {repr(value): value for value in row.wrong}
    for kind, value in (row.kinds | wrong).items():
        if kind in row.fine:
            continue
        line = answer(row.call, kind, value)
        assert line.startswith(tuple(names)), (kind, line)
        assert row.allowed in line, (kind, line)
        assert "got " in line, (kind, line)
        assert any(word in line for word in told(value)), (kind, line)
        assert list(empty.iterdir()) == [], kind


@pytest.mark.parametrize("row", [row_of(name, argument, row) for name, argument, row in ROWS if row.good])
def test_a_good_argument(row):
    for value in row.good:
        row.call(value)
