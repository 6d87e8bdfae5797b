"""Prints the OpenAPI schema of the viewer's server, which the page's types are generated from.

python -m experiments.viewer.schema > schema.json
"""

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from experiments.viewer.episode_records import Changed, Exported
from experiments.viewer.server import create_app


def schema() -> dict[str, Any]:
    """OpenAPI 3.1, with the records that no route answers with too."""
    found = create_app(Path()).openapi()
    beside = models_json_schema(
        [(Changed, "serialization"), (Exported, "serialization")], ref_template="#/components/schemas/{model}"
    )
    found["components"]["schemas"] |= beside[1]["$defs"]
    return found


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, sort_keys=True))
