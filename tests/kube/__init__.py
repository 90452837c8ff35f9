"""A real etcd and kube-apiserver for tests: built from Go modules, run on loopback."""
