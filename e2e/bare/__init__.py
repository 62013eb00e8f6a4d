"""A control plane without nodes, on loopback: for what needs a real API server and no packet.

Real are etcd, kube-apiserver, kube-controller-manager, kube-scheduler (of the local cluster's build) and the operator, which
runs as a process of this machine with the chart's own rights. Kubelets are a stand-in (kubelets.py), and no pod runs.

It stands beside e2e/cluster, whose programs it starts, and needs neither root nor the cluster: tests/control_plane,
bench/operator_scale.py and `make check-old-kubernetes` build upon it.
"""
