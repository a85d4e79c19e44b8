"""The master of a run: one per run, it carries no tensor data. Embedded here; alone, see cli/master.py."""

from .dashboard import Dashboard
from .embedded import Master, Store
from .etcd_store import EtcdStore

__all__ = ["Dashboard", "EtcdStore", "Master", "Store"]
