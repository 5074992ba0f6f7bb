"""The port doctor: which convention does a model break, and where?

Read ``network`` first (the network, taken apart), then ``conventions`` (what ports do differently),
``search`` (which of these explain what a port returned), ``diagnose`` (how a port is asked) and
``step`` (what it does in training).
"""

from .conventions import CONVENTIONS, Convention, Suspect
from .diagnose import Diagnosis, Finding, diagnose, diagnose_outputs, suspicion
from .step import Step, diagnose_step

__all__ = [
    "CONVENTIONS",
    "Convention",
    "Diagnosis",
    "Finding",
    "Step",
    "Suspect",
    "diagnose",
    "diagnose_outputs",
    "diagnose_step",
    "suspicion",
]
