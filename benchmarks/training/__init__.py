"""Does the connectome choose a good learning rate? Tasks, methods, controls, paired seeds, intervals.

From the question to the answer: `data` and `models` make `tasks`; `signals` and `controllers` make, with
Optax, `methods`; `workers` has `runner` train them and `store` keeps the results; `protocols` compares them,
`report` and `figures` tell it, `picture` is README's. `tuning` holds the experiments that set the defaults.

This is no study of `benchmarks.study`, which trains larger networks on validation splits, beyond a grid of
rates where need be: here all rates of all methods of a family are one compilation, a process has one core,
and the scale at every step is kept, to be replayed. What both do is in `benchmarks`, `steps` first of all.
"""
