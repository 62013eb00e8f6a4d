"""The Kubernetes API: reading objects into records (observe), and writing what a plan says (apply)."""
