"""The parts of the training benchmark: models, data, tasks, methods, runner, statistics, report, figures."""
