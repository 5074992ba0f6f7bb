"""The port doctor: which convention does a model break, and where?

Read ``network`` first (the network, taken apart), then ``conventions`` (what ports do differently),
``search`` (which of these explain what a port returned) and ``diagnose`` (how a port is asked).
"""

from .conventions import CONVENTIONS, Convention, Suspect
from .diagnose import Diagnosis, Finding, diagnose, diagnose_outputs, suspicion

__all__ = [
    "CONVENTIONS",
    "Convention",
    "Diagnosis",
    "Finding",
    "Suspect",
    "diagnose",
    "diagnose_outputs",
    "suspicion",
]
