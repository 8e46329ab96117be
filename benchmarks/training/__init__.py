"""Does the connectome choose a good learning rate? Tasks, methods, controls, paired seeds, intervals.

From the question to the answer: `data` and `models` make `tasks`; `signals` and `controllers` make, with
Optax, `methods`; `workers` has `runner` train them and `store` keeps the results; `protocols` compares them,
`report` and `figures` tell it, `picture` is README's. `tuning` holds the experiments that set the defaults.
"""
