"""Engines of the voice pipeline, each behind a protocol of engines/stages.py, found by name."""
