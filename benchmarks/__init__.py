"""The benchmarks: what the library earns and what it costs.

Run from the root of the repository::

    python -m benchmarks.training         # does it choose a good learning rate?
    python -m benchmarks.real_size        # does it hold at real size?
    python -m benchmarks.conditions       # under other momenta, batches, lengths, depths?
    python -m benchmarks.paper            # does the paper hold, on real data?
    python -m benchmarks.rate_finder      # which range test finds the better rate?
    python -m benchmarks.early_stopping   # can the connectome say when to stop?
    python -m benchmarks.faults           # does one bad measurement decide a run?
    python -m benchmarks.faults.one_gradient # does one huge gradient?
    python -m benchmarks.mutation         # would the tests see a wrong sign?
    python -m benchmarks.speed.kernels    # how fast are the kernels?
    python -m benchmarks.speed.step       # what does it add to a training step?
    python -m benchmarks.speed.first_step # how long does one wait for the first step?
    python -m benchmarks.speed.growth     # how does that grow with the network?
"""
