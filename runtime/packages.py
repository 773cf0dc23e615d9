"""Check that optional packages are installed, before they are imported."""
from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from runtime.errors import DataError


def require_packages(packages: Sequence[str], install: str) -> None:
    """Check that packages can be imported.

    Args:
        packages: names to import.
        install: words for pip, such as "-r requirements-app.txt".

    Raises:
        DataError: a package is missing.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise DataError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
                        f"installed; type: pip install {install}")
