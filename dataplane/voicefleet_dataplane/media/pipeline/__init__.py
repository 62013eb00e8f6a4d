"""A conversation made of stages: voice activity, speech to text, a text handler, text to speech. Pure; docs/pipeline.md."""
