"""Runs for other programs and other people: one HTML file, Parquet, OpenTelemetry spans, Inspect's log.

Each reads episode by episode from the store and writes as it reads; what it writes appears whole or not at all. What
cannot be read is left out and told. See experiments.export.command.
"""
