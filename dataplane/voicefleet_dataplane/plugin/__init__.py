"""`kubectl voicefleet`: what kubectl's own tables do not put together. Reads through kubectl, so every login that it knows works."""
