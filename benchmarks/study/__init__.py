"""The engine of the studies on real data: `benchmarks.paper`, `real_size` and `rate_finder`.

`tasks` says what is trained and `methods` by what, `problems` has data that several studies read; `runner`
trains, `store` keeps the results and `archive` the published ones, `lines` reads them; `comparison` is the
command line. Why `benchmarks.training` has an engine of its own is said there.
"""
