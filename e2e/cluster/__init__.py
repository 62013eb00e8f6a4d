"""A real Kubernetes on this machine, for the demo and the end-to-end tests: `python -m e2e.cluster COMMAND`.

Owns: building Kubernetes from its Go modules, three nodes as network namespaces, images, and taking all of it away again.
Does not own: what runs on it. Standard library only, so that it starts before any virtual environment exists.

Invariant: everything that lives outside the cache is found again without memory of who made it: processes by their
cgroup, network namespaces by name, mounts because they exist only inside the nodes' own mount namespaces, files in one
state directory. So `down` cleans up after a crash as it does after a clean run.
"""
