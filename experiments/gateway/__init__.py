"""The gateway: agents of any framework that speaks OpenAI's chat completions play in a run, by their base_url alone.

`protocol` and `replies` are the wire, `app` the HTTP application, `guard` its door, `episodes` who calls in which
episode; `agent` has a function play in a run, `served` and `serve` are `palaestra serve`.
"""
