"""Does the paper hold? Its own configuration on real data, against the schedules that it names.

`models` and `tasks` say what is trained, `methods` by what; `report` and `figures` tell what came out.
`benchmarks.study` does the rest.
"""
