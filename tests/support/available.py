"""The backends that can be installed for this Python on this platform, and why others cannot.

They are read from the package's metadata: the first requirement of a backend's extra is its
framework, and the marker of that requirement states where the framework is available.
"""

from importlib.metadata import distribution
from platform import python_version

from packaging.requirements import Requirement

import densenet_multi as dm


def framework_of(name: str) -> Requirement | None:
    """The first requirement of a backend's extra; None for a backend of another package."""
    for text in distribution("densenet_multi").requires or []:
        requirement = Requirement(text)
        if requirement.marker and f'extra == "{name}"' in str(requirement.marker):
            return requirement
    return None


def left_out() -> dict[str, str]:
    """The backends that cannot be installed here, {name: reason}."""
    reasons = {}
    for name in dm.backend_names():
        framework = framework_of(name)
        if framework and framework.marker and not framework.marker.evaluate({"extra": name}):
            wanted = f"{framework.name}{framework.specifier}"
            reasons[name] = (
                f"{wanted} does not exist for Python {python_version()} on this platform"
            )
    return reasons


AVAILABLE = [name for name in dm.backend_names() if name not in left_out()]
