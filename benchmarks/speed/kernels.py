"""Connectome, births, deaths and the whole measurement, against the libraries that compute the same.

    python -m benchmarks.speed.kernels [--quick] [--json FILE]

CPU time on one core (wall time for giotto-ph with 2 threads, on all there are). Within a size all run
interleaved, one timed call each a round, caches warm; compile time is apart; the spread is the middle 80 %.
`floor` rows bound what is possible: one pass over the matrix, or only the matrix product. `reference` is
what the paper's group publishes in spirit: np.corrcoef, SciPy's spanning tree, np.sort of all edges. Units
are mixtures of latent signals, so that their correlations spread over [0, 1]. Ours are told that a
connectome is symmetric. `default signal` is what the default of the library takes per measurement of
4 layers and their matrices: births of 16 units of each, and how far the matrices moved.

On a GPU: wall time, stretches of calls back to back; births by Boruvka, whose floor is as many row maxima as
it takes rounds; only N = 512; the rivals are giotto-ph on the host, with 1 thread and with all, and Prim's
algorithm as a loop in PyTorch on the GPU, which is how RTD-Lite computes the same tree.
"""

import functools
import importlib
import math
from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.csgraph

from benchmarks import arguments, one_core
from benchmarks.speed import timing
from cgalr_jax import signals
from cgalr_jax.topology import compute_barcode, compute_births, functional_connectome, top_distance

SIZES = (64, 256, 1024, 4096)
BINS = (64, 128)
LAYERS = 8
BATCHED = f"births of {LAYERS} layers"
FLOORS = ("floor: row maxima", "floor: matrix product", "floor: Boruvka's passes")
TORCH = "Prim in PyTorch on the GPU"
# The largest P at which a method is timed where the library does not choose it.
OTHER = {"Prim": 256, "Boruvka": 1024}
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
TARGETS = {key: key for key in ("kernel", "implementation", "units", "value", "target", "met")}


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


def row_maxima_in_rounds(connectome: jax.Array) -> jax.Array:
    """A pass over the matrix for each round of Boruvka's, which needs what the one before it has found."""
    rounds = (connectome.shape[0] - 1).bit_length()

    def one(_: jax.Array, bound: jax.Array) -> jax.Array:
        return jnp.max(jnp.minimum(connectome, bound[None, :]), axis=1)

    return jax.lax.fori_loop(0, rounds, one, jnp.ones(connectome.shape[0]))


def default_signal(layers: dict[str, jax.Array], params: dict[str, jax.Array], before: tuple) -> tuple:
    signal = signals.hybrid()
    after = signal.read(layers, params)  # pyright: ignore[reportArgumentType]  a mapping is accepted
    return signal.compare(before, after), after


def chosen() -> str:
    """The method that the library chooses for wide layers on this platform, and what ours is called."""
    return "Prim" if timing.on_cpu() else "Boruvka"


def torch_births(distances: np.ndarray) -> Callable[[], object] | None:
    """Prim's algorithm as a loop in PyTorch on the GPU, if there is one. Its host never waits for a step."""
    torch = _optional("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    matrix = torch.as_tensor(distances, device="cuda")

    def births() -> object:
        link = torch.full_like(matrix[0], math.inf)  # distance of each node from the tree; inf in it
        inside = torch.zeros_like(link, dtype=torch.bool)
        new = torch.zeros(1, dtype=torch.long, device=matrix.device)
        found = []
        for _ in range(matrix.shape[0] - 1):
            inside.index_fill_(0, new, True)
            link = torch.minimum(link, matrix.index_select(0, new)[0]).masked_fill_(inside, math.inf)
            nearest, new = torch.min(link, 0, keepdim=True)
            found.append(nearest)
        return torch.cat(found).cpu()

    return births


def rivals(connectome: np.ndarray, cores: Collection[int]) -> dict[str, Callable[[], object]]:
    """H0 by the libraries that are installed, from a distance matrix made beforehand."""
    distances = 1 - connectome
    np.fill_diagonal(distances, 0)
    calls: dict[str, Callable[[], object]] = {}
    threads = 2 if timing.on_cpu() else len(cores)
    if (gph := _optional("gph")) is not None:

        def giotto(threads: int) -> object:
            return gph.ripser_parallel(distances, maxdim=0, metric="precomputed", n_threads=threads)

        def giotto_on_all_cores() -> object:
            with timing.spread_over(cores):
                return giotto(threads)

        calls["giotto-ph, 1 thread"] = lambda: giotto(1)
        calls[f"giotto-ph, {threads} threads"] = giotto_on_all_cores
    if not timing.on_cpu():
        return calls if (loop := torch_births(distances)) is None else calls | {TORCH: loop}
    calls["SciPy"] = lambda: scipy_births(connectome)
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
        method: functools.partial(compute_births, method=method.lower(), symmetrise=False) for method in OTHER
    }
    layers = {f"layer {seed}": jnp.asarray(activations(samples, units, seed)) for seed in range(4)}
    matrices = dict.fromkeys(layers, connectome)
    table = {
        ("connectome", "ours"): (functional_connectome, (x,)),
        ("connectome", FLOORS[1]): (matrix_product, (x,)),
        ("births", FLOORS[0]): (functools.partial(jnp.max, axis=1), (connectome,)),
        ("measurement", "ours"): (measurement, (x, before)),
        ("measurement", FLOORS[1]): (matrix_product, (x,)),
        ("default signal", "ours"): (
            default_signal,
            (layers, matrices, signals.hybrid().read(layers, matrices)),  # pyright: ignore[reportArgumentType]
        ),
    }
    for method, largest in OTHER.items():
        if method == chosen() or units <= largest:
            table["births", f"ours, {method}"] = (births[method], (connectome,))
    if not timing.on_cpu():
        table["births", FLOORS[2]] = (row_maxima_in_rounds, (connectome,))
    for bins in BINS:
        binned = functools.partial(compute_barcode, bins=bins)
        table["births + deaths", f"ours, {bins} bins"] = (binned, (connectome,))
    if units <= 1024:
        table["births + deaths", "ours, sorted"] = (compute_barcode, (connectome,))
        eight = [functional_connectome(activations(samples, units, seed)) for seed in range(LAYERS)]
        table[BATCHED, "ours, vmap"] = (jax.vmap(births[chosen()]), (jnp.stack(eight),))
    return table


def measure(
    samples: int, units: int, rounds: int, full: bool, cores: Collection[int]
) -> list[arguments.Record]:
    """All implementations at one size; where only N varies (not `full`), only what depends on it."""
    table = {
        key: row
        for key, row in ours(samples, units).items()
        if full or key[0] in ("connectome", "measurement")
    }
    programs = timing.each(lambda row: timing.compiled(row[0], *row[1]), table.values())
    compile_ms = {key: milliseconds for key, (_, milliseconds) in zip(table, programs, strict=True)}
    calls: dict[tuple[str, str], functools.partial | Callable[[], object]] = {
        key: functools.partial(executable, *inputs)
        for (key, (_, inputs)), (executable, _) in zip(table.items(), programs, strict=True)
    }
    x = activations(samples, units)
    connectome = np.asarray(functional_connectome(x))
    if full:
        calls |= {("births", name): call for name, call in rivals(connectome, cores).items()}
    if timing.on_cpu():
        calls["connectome", "reference"] = functools.partial(np.corrcoef, x, rowvar=False)
        before = scipy_births(connectome)
        calls["measurement", "reference"] = functools.partial(reference_measurement, x, before)
        if full:
            calls["births + deaths", "reference"] = functools.partial(reference_barcode, connectome)
    if (BATCHED, "ours, vmap") in calls:
        single = calls["births", f"ours, {chosen()}"].func  # compiled
        layers = list(calls[BATCHED, "ours, vmap"].args[0])  # eight matrices in either case
        calls[BATCHED, "ours, one by one"] = lambda: [single(layer) for layer in layers]
    named = {" | ".join(key): call for key, call in calls.items()}
    threaded = [name for name in named if name.endswith("threads")]
    times = timing.interleaved(named, rounds, warm_below=150, thrice_above=150, threaded=threaded)
    return [
        {
            "kernel": key[0],
            "implementation": key[1],
            "units": units,
            "samples": samples,
            **timing.spread(times[" | ".join(key)]),
            "compile_ms": compile_ms.get(key),
            "platform": jax.default_backend()
            if key in compile_ms or key[1].startswith("ours") or key[1] == TORCH
            else "cpu",
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
    """The targets of the kernels on this platform, each a median in ms or the ratio of two."""
    measured = [r for r in records if r["median_ms"] is not None]
    median = {(r["kernel"], r["implementation"], r["units"], r["samples"]): r["median_ms"] for r in measured}
    birth, both, whole = "births", "births + deaths", "measurement"
    our = (birth, f"ours, {chosen()}")
    wanted = [
        *(
            ("ours / births", units, (both, f"ours, {bins} bins"), our, 2, False)
            for bins in BINS
            for units in SIZES
        ),
        *(
            ("vmap / one by one", units, (BATCHED, "ours, vmap"), (BATCHED, "ours, one by one"), 1, False)
            for units in SIZES
        ),
    ]
    if timing.on_cpu():
        wanted += [
            ("giotto-ph / ours", 1024, (birth, "giotto-ph, 1 thread"), our, 20, True),
            ("SciPy / ours", 1024, (birth, "SciPy"), our, 60, True),
            ("ours / row maxima", 4096, our, (birth, FLOORS[0]), 6, False),
            ("reference / ours", 1024, (both, "reference"), (both, "ours, 64 bins"), 15, True),
            ("ours / matrix product", 1024, (whole, "ours"), (whole, FLOORS[1]), 1.5, False),
        ]
    else:
        wanted += [
            ("ms", 1024, (whole, "ours"), None, 0.3, False),
            ("ms", 4096, (whole, "ours"), None, 2, False),
            *(("ours / Boruvka's passes", units, our, (birth, FLOORS[2]), 4, False) for units in SIZES),
            *(("PyTorch / ours", units, (birth, TORCH), our, 1, True) for units in SIZES),
            *(("giotto-ph / ours", units, (birth, "giotto-ph, 1 thread"), our, 1, True) for units in SIZES),
        ]
    rows = []
    for name, units, top, bottom, bound, at_least in wanted:
        keys = [(*key, units, samples) for key in (top, bottom) if key]
        if all(key in median for key in keys):
            value = median[keys[0]] / (median[keys[1]] if bottom else 1)
            met = value >= bound if at_least else value <= bound
            rows.append(
                {
                    "kernel": top[0],
                    "implementation": f"{name} ({top[1]})",
                    "units": units,
                    "value": value,
                    "target": f"{'at least' if at_least else 'at most'} {bound}",
                    "met": "yes" if met else "missed",
                }
            )
    return rows


def _optional(name: str):
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):  # the latter: installed, but its own libraries do not load
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
        sizes, usual, rounds = SIZES, 512, 11
        counts = (128, 512, 2048) if timing.on_cpu() else (usual,)
    records: list[arguments.Record] = []
    for units in sizes:
        for samples in counts:
            records += measure(samples, units, rounds, samples == usual, cores)
            arguments.write(options.json, records)  # whatever ends it later
    records += not_measured(usual, (1024, 4096))
    timing.show("Kernels", records, COLUMNS)
    timing.show("Growth with P", exponents(records, usual), GROWTH)
    timing.show("Targets", targets(records, usual), TARGETS)
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
