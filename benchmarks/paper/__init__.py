"""Does the paper hold? Its own configuration on real data, against the schedules that it names.

`models` and `tasks` say what is trained, `methods` by what; `runner` trains, `store` keeps the results,
`report` and `figures` tell them.
"""
