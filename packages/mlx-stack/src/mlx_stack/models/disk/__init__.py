"""Models on disk: finding, verifying, removing.

`find_local` answers what serving needs to know: where is the folder of this model, is it whole?
"""

from mlx_stack.models.disk.local import (
    Integrity,
    LocalModel,
    find_local,
    inspect_folder,
    list_local,
)

__all__ = ["Integrity", "LocalModel", "find_local", "inspect_folder", "list_local"]
