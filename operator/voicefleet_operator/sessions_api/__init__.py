"""The aggregated API server: `kubectl get voicesessions`, served from the registry, nothing of it in etcd."""
