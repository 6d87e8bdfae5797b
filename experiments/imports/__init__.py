"""Debates that other programs have recorded, as runs. One format a module; see experiments.export.command."""
