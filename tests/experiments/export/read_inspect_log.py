"""Run in Inspect's own environment: prints what its reader makes of a log, as JSON."""

# pyright: reportMissingImports=false
import json
import sys

from inspect_ai.event import ModelEvent
from inspect_ai.log import read_eval_log

log = read_eval_log(sys.argv[1], resolve_attachments=True)
assert log.results is not None
samples = [
    {
        "id": sample.id,
        "epoch": sample.epoch,
        "input": sample.input,
        "target": sample.target,
        "scores": {name: [str(score.value), score.answer] for name, score in (sample.scores or {}).items()},
        "error": sample.error and sample.error.message,
        "events": [event.event for event in sample.events],
        "calls": [
            {
                "role": event.role,
                "input": [message.text for message in event.input],
                "output": event.output.completion,
                "turn": event.metadata,
                "seconds": event.output.time,
            }
            for event in sample.events
            if isinstance(event, ModelEvent)
        ],
        "last": sample.messages[-1].text if sample.messages else None,
        "tokens": {role: usage.total_tokens for role, usage in sample.role_usage.items()},
    }
    for sample in log.samples or []
]
(score,) = log.results.scores
print(
    json.dumps(
        {
            "status": log.status,
            "task": log.eval.task,
            "metadata": log.eval.metadata,
            "accuracy": score.metrics["accuracy"].value,
            "scored": [score.scored_samples, score.unscored_samples],
            "samples": samples,
        }
    )
)
