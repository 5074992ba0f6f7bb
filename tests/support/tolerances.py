"""How close results must be to count as the same: one row per promise, each with its reason.

A deviation is the largest absolute difference, divided by the largest absolute value expected (for
gradients: of any gradient; for scalars: of the scalar). ``measured`` is the largest of the four
backends in the environment of constraints.txt, or of two judges of ONNX files; ``pytest`` prints
new ones at the end of each run.

For networks that Hypothesis draws, a deviation is divided by how much the network itself amplifies
a relative change of its weights and pixels (``amplified``, if it is above 1). Any implementation,
however exact, loses digits with a single class whose logit happens to be near 0, or with a
BatchNorm over almost equal values.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tier:
    tolerance: float
    measured: float
    reason: str


TIERS = {
    "forward float64": Tier(
        1e-13,
        3.4e-15,
        "sums of up to 10,000 products in another order; an epsilon of 1.001e-5 would show",
    ),
    "forward float32": Tier(2e-6, 1.4e-6, "the same in float32: what users run"),
    "loss float64": Tier(1e-13, 6.9e-16, "a mean of logarithms of sums"),
    "loss float32": Tier(
        4e-6, 8.7e-7, "dividing by the deviation of a batch of three amplifies float32 rounding"
    ),
    "statistics float64": Tier(
        1e-13,
        1.1e-15,
        "one weighted mean per channel, with a decay (7/8) that float32 holds exactly",
    ),
    "statistics decay 0.9": Tier(
        2e-7, 9.9e-8, "Gluon stores the decay as float32: 0.9 becomes 0.89999998"
    ),
    "statistics float32": Tier(2e-6, 6.0e-7, "batch variances in float32, after a whole network"),
    "gradients float64": Tier(
        1e-11,
        2.2e-15,
        "against the exact (complex-step) derivative; a drawn network may amplify rounding by 1e4",
    ),
    "gradients differences": Tier(
        1e-7, 5.9e-10, "central differences with h = 1e-6 lose half of the digits"
    ),
    "trajectory float64": Tier(
        1e-11, 2.8e-15, "the weights after eight steps, against the rule of recipe.py in NumPy"
    ),
    "peer float64": Tier(
        1e-13, 2.6e-15, "another project's model of up to 201 layers, in another order of additions"
    ),
    "peer float32": Tier(2e-6, 9.1e-7, "the same in float32"),
    "onnx float64": Tier(
        1e-13,
        2.6e-16,
        "onnx's evaluator and a reference with the file's epsilon: sums in another order",
    ),
    "onnx epsilon": Tier(
        1e-9,
        4.0e-11,
        "the same against the exact epsilon: ONNX stores it in float32, 1e-3 as 1.00000005e-3",
    ),
    "onnx float32": Tier(2e-6, 5.0e-7, "ONNX Runtime in float32, which also fuses layers"),
    "onnx float16": Tier(1e-2, 8.9e-4, "the same with weights and maps rounded to 11 bits"),
    "gradients together": Tier(1e-11, 7.4e-15, "backend against backend, by name, in one process"),
}


@dataclass
class Deviations:
    """Checks deviations against their tier, and remembers the largest of each."""

    largest: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, tier: str, backend_name: str, value: float) -> None:
        key = tier, backend_name
        self.largest[key] = max(value, self.largest.get(key, 0.0))

    def check(
        self, tier: str, backend_name: str, value: float, what: str, *, amplified: float = 0.0
    ) -> None:
        value = float(value) / max(1.0, float(amplified))  # execnet cannot send NumPy numbers
        self.note(tier, backend_name, value)
        limit = TIERS[tier].tolerance
        assert value <= limit, (
            f"{backend_name}: {what} deviates by {value:.2e}, {tier} allows {limit}"
        )
