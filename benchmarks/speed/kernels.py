"""Connectome, births, deaths and the whole measurement, against the libraries that compute the same.

    python -m benchmarks.speed.kernels [--quick] [--json FILE]

CPU time on one core (wall time for giotto-ph with 2 threads, on all there are). Within a size all run
interleaved, one timed call each a round, caches warm; compile time is apart; the spread is the middle 80 %.
`floor` rows bound what is possible: one pass over the matrix, or only the matrix product. `reference` is
what the paper's group publishes in spirit: np.corrcoef, SciPy's spanning tree, np.sort of all edges. Units
are mixtures of latent signals, so that their correlations spread over [0, 1]. Ours are told that a
connectome is symmetric.
"""

import functools
import importlib
from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.csgraph

from benchmarks import arguments
from benchmarks.speed import one_core, timing
from cgalr_jax.topology import compute_barcode, compute_births, functional_connectome, top_distance

SIZES = (64, 256, 1024, 4096)
BINS = (64, 128)
LAYERS = 8
BATCHED = f"births of {LAYERS} layers"
FLOORS = ("floor: row maxima", "floor: matrix product")
COLUMNS = {
    "kernel": "kernel",
    "implementation": "implementation",
    "units": "P",
    "samples": "N",
    "median_ms": "median ms",
    "low_ms": "10 %",
    "high_ms": "90 %",
    "compile_ms": "compile ms",
    "platform": "platform",
}
GROWTH = {"kernel": "kernel", "implementation": "implementation", "sizes": "P", "exponent": "exponent"}
TARGETS = {key: key for key in ("kernel", "implementation", "units", "ratio", "target", "met")}


def activations(samples: int, units: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(samples, 16))
    loading = rng.normal(size=(16, units)) * rng.random((16, units)) ** 4
    return (latent @ loading + 0.3 * rng.normal(size=(samples, units))).astype(np.float32)


def scipy_births(connectome: np.ndarray) -> np.ndarray:
    return np.sort(-scipy.sparse.csgraph.minimum_spanning_tree(-connectome).data)


def reference_barcode(connectome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return scipy_births(connectome), np.sort(connectome[np.triu_indices(connectome.shape[0], 1)])


def reference_measurement(units: np.ndarray, before: np.ndarray) -> np.ndarray:
    connectome = np.abs(np.corrcoef(units, rowvar=False))
    np.fill_diagonal(connectome, 0)
    births, _ = reference_barcode(connectome)
    return np.sqrt(np.mean((births - before) ** 2))


def measurement(units: jax.Array, before: jax.Array) -> jax.Array:
    return top_distance(compute_births(functional_connectome(units), symmetrise=False), before)


def matrix_product(units: jax.Array) -> jax.Array:
    return jnp.matmul(units.T, units, precision=jax.lax.Precision.HIGHEST)


def rivals(connectome: np.ndarray, cores: Collection[int]) -> dict[str, Callable[[], object]]:
    """H0 by the libraries that are installed, from a distance matrix made beforehand."""
    distances = 1 - connectome
    np.fill_diagonal(distances, 0)
    calls: dict[str, Callable[[], object]] = {"SciPy": lambda: scipy_births(connectome)}
    if (gph := _optional("gph")) is not None:

        def giotto(threads: int) -> object:
            return gph.ripser_parallel(distances, maxdim=0, metric="precomputed", n_threads=threads)

        def giotto_on_all_cores() -> object:
            with timing.spread_over(cores):
                return giotto(2)

        calls |= {"giotto-ph, 1 thread": lambda: giotto(1), "giotto-ph, 2 threads": giotto_on_all_cores}
    if (ripser := _optional("ripser")) is not None:
        calls["ripser.py"] = lambda: ripser.ripser(distances, distance_matrix=True, maxdim=0)
    if (gudhi := _optional("gudhi")) is not None and connectome.shape[0] <= 1024:

        def gudhi_births() -> object:
            tree = gudhi.RipsComplex(distance_matrix=distances).create_simplex_tree(max_dimension=1)
            return tree.persistence()

        calls["gudhi"] = gudhi_births
    return calls


def ours(samples: int, units: int) -> dict[tuple[str, str], tuple[Callable, tuple]]:
    """(kernel, implementation) -> function to compile and its inputs."""
    x = jnp.asarray(activations(samples, units))
    connectome = functional_connectome(x)
    before = compute_births(connectome, symmetrise=False)
    births = {
        method: functools.partial(compute_births, method=method, symmetrise=False)
        for method in ("prim", "boruvka")
    }
    table = {
        ("connectome", "ours"): (functional_connectome, (x,)),
        ("connectome", FLOORS[1]): (matrix_product, (x,)),
        ("births", "ours, Prim"): (births["prim"], (connectome,)),
        ("births", FLOORS[0]): (functools.partial(jnp.max, axis=1), (connectome,)),
        ("measurement", "ours"): (measurement, (x, before)),
        ("measurement", FLOORS[1]): (matrix_product, (x,)),
    }
    for bins in BINS:
        binned = functools.partial(compute_barcode, bins=bins)
        table["births + deaths", f"ours, {bins} bins"] = (binned, (connectome,))
    if units <= 1024:
        table["births", "ours, Boruvka"] = (births["boruvka"], (connectome,))
        table["births + deaths", "ours, sorted"] = (compute_barcode, (connectome,))
        layers = [functional_connectome(activations(samples, units, seed)) for seed in range(LAYERS)]
        table[BATCHED, "ours, vmap"] = (jax.vmap(births["prim"]), (jnp.stack(layers),))
    return table


def measure(
    samples: int, units: int, rounds: int, full: bool, cores: Collection[int]
) -> list[arguments.Record]:
    """All implementations at one size; where only N varies (not `full`), only what depends on it."""
    calls: dict[tuple[str, str], functools.partial | Callable[[], object]] = {}
    compile_ms: dict[tuple[str, str], float] = {}
    for key, (function, inputs) in ours(samples, units).items():
        if full or key[0] in ("connectome", "measurement"):
            executable, compile_ms[key] = timing.compiled(function, *inputs)
            calls[key] = functools.partial(executable, *inputs)
    x = activations(samples, units)
    calls["connectome", "reference"] = functools.partial(np.corrcoef, x, rowvar=False)
    connectome = np.asarray(functional_connectome(x))
    calls["measurement", "reference"] = functools.partial(reference_measurement, x, scipy_births(connectome))
    if full:
        calls |= {("births", name): call for name, call in rivals(connectome, cores).items()}
        calls["births + deaths", "reference"] = functools.partial(reference_barcode, connectome)
    if (BATCHED, "ours, vmap") in calls:
        single = calls["births", "ours, Prim"].func  # compiled
        layers = list(calls[BATCHED, "ours, vmap"].args[0])  # eight matrices in either case
        calls[BATCHED, "ours, one by one"] = lambda: [single(layer) for layer in layers]
    named = {" | ".join(key): call for key, call in calls.items()}
    threaded = [name for name in named if "2 threads" in name]
    times = timing.interleaved(named, rounds, warm_below=150, thrice_above=150, threaded=threaded)
    return [
        {
            "kernel": key[0],
            "implementation": key[1],
            "units": units,
            "samples": samples,
            **timing.spread(times[" | ".join(key)]),
            "compile_ms": compile_ms.get(key),
            "platform": jax.default_backend() if key in compile_ms or key[1].startswith("ours") else "cpu",
        }
        for key in sorted(calls)
    ]


def not_measured(samples: int, sizes: tuple[int, ...]) -> list[arguments.Record]:
    """The rows of a GPU where none is at hand."""
    if jax.default_backend() == "gpu":
        return []
    nothing = dict.fromkeys(("median_ms", "low_ms", "high_ms", "compile_ms"))
    return [
        {"kernel": "measurement", "implementation": name, "units": units, "samples": samples}
        | nothing
        | {"platform": "not measured on GPU"}
        for units in sizes
        for name in ("ours", FLOORS[1])
    ]


def exponents(records: list[arguments.Record], samples: int) -> list[arguments.Record]:
    """Cost ~ P^exponent, by least squares in logarithms over all sizes, at one N."""
    rows = []
    keys = dict.fromkeys((r["kernel"], r["implementation"]) for r in records)
    for kernel, name in keys:
        chosen = [
            (r["units"], r["median_ms"])
            for r in records
            if (r["kernel"], r["implementation"], r["samples"]) == (kernel, name, samples) and r["median_ms"]
        ]
        if len(chosen) >= 3:
            slope = np.polyfit(*np.log(np.array(chosen, float)).T, 1)[0]
            sizes = f"{chosen[0][0]} ... {chosen[-1][0]}"
            rows.append({"kernel": kernel, "implementation": name, "sizes": sizes, "exponent": float(slope)})
    return rows


def targets(records: list[arguments.Record], samples: int) -> list[arguments.Record]:
    """The targets of the kernels, each a ratio of two medians."""
    measured = [r for r in records if r["median_ms"] is not None]
    median = {(r["kernel"], r["implementation"], r["units"], r["samples"]): r["median_ms"] for r in measured}
    birth, both, whole = "births", "births + deaths", "measurement"
    wanted = [
        ("giotto-ph / ours", 1024, (birth, "giotto-ph, 1 thread"), (birth, "ours, Prim"), 20, True),
        ("SciPy / ours", 1024, (birth, "SciPy"), (birth, "ours, Prim"), 60, True),
        ("ours / row maxima", 4096, (birth, "ours, Prim"), (birth, FLOORS[0]), 6, False),
        *(
            ("ours / births", units, (both, f"ours, {bins} bins"), (birth, "ours, Prim"), 2, False)
            for bins in BINS
            for units in SIZES
        ),
        *(
            ("vmap / one by one", units, (BATCHED, "ours, vmap"), (BATCHED, "ours, one by one"), 1, False)
            for units in SIZES
        ),
        ("reference / ours", 1024, (both, "reference"), (both, "ours, 64 bins"), 15, True),
        ("ours / matrix product", 1024, (whole, "ours"), (whole, FLOORS[1]), 1.5, False),
    ]
    rows = []
    for name, units, top, bottom, bound, at_least in wanted:
        keys = [(*key, units, samples) for key in (top, bottom)]
        if all(key in median for key in keys):
            ratio = median[keys[0]] / median[keys[1]]
            met = ratio >= bound if at_least else ratio <= bound
            rows.append(
                {
                    "kernel": top[0],
                    "implementation": f"{name} ({top[1]})",
                    "units": units,
                    "ratio": ratio,
                    "target": f"{'at least' if at_least else 'at most'} {bound}",
                    "met": "yes" if met else "missed",
                }
            )
    return rows


def _optional(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def main() -> None:
    options = arguments.parser(
        "benchmarks.speed.kernels",
        __doc__,
        quick="small sizes, few repeats: seconds",
        records="for each kernel, implementation and size",
    ).parse_args()
    cores = one_core.keep()
    timing.keep_memory()
    if options.quick:
        sizes, counts, usual, rounds = (64, 128, 256), (128,), 128, 3
    else:
        sizes, counts, usual, rounds = SIZES, (128, 512, 2048), 512, 11
    records: list[arguments.Record] = []
    for units in sizes:
        for samples in counts:
            records += measure(samples, units, rounds, samples == usual, cores)
    records += not_measured(usual, (1024, 4096))
    timing.show("Kernels", records, COLUMNS)
    timing.show("Growth with P", exponents(records, usual), GROWTH)
    timing.show("Targets", targets(records, usual), TARGETS)
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
