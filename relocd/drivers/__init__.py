"""Adapters to hypervisors: one contract (base), one package or module a hypervisor."""
