"""Check individual layers of a declared Keras model against what this package builds.

Each ``WeightsError`` names the offending layer.
"""

from __future__ import annotations

from typing import Any

from ...weights import WeightsError
from .entries import READ
from .graph import Layer

IDLE = (  # classes that do nothing in inference
    "Dropout",
    "SpatialDropout2D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
    "Identity",
    "RandomFlip",
    "RandomRotation",
    "RandomZoom",
    "RandomTranslation",
    "RandomContrast",
    "RandomBrightness",
    "RandomHeight",
    "RandomWidth",
    "RandomHue",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomGrayscale",
    "RandomErasing",
    "RandomPerspective",
    "RandomPosterization",
    "RandomColorJitter",
    "RandomColorDegeneration",
    "RandomGaussianBlur",
    "RandomElasticTransform",
    "RandomInvert",
    "AugMix",
    "CutMix",
    "MixUp",
    "RandAugment",
)
USUAL = {  # defaults of options that a declaration may omit
    "dilation_rate": [1, 1],
    "groups": 1,
    "data_format": "channels_last",
    "strides": [1, 1],
    "padding": "valid",
    "center": True,
    "scale": True,
}
OTHER = "the same weights would compute a different function"


def only_reader(layer: Layer) -> Layer:
    """Return the only layer that reads this one."""
    if len(layer.readers) != 1:
        found = ", ".join(dict.fromkeys(map(str, layer.readers[:6]))) or "none"
        raise WeightsError(f"{layer}: expected exactly one layer to read it, found {found}")
    return layer.readers[0]


def expect_kind(layer: Layer, kind: str) -> None:
    """Raise unless the layer is of this class."""
    if layer.kind == "Lambda":
        raise WeightsError(
            f"{layer}: expected a {kind} layer here, found code inside the file, which is never "
            "run; build the model with a Keras layer instead, and save it again"
        )
    if layer.kind != kind:
        raise WeightsError(
            f"{layer}: expected a {kind} layer here; no DenseNet of this package has this one"
        )


def expect(layer: Layer, option: str, expected: Any) -> None:
    """Raise unless an option has the expected value."""
    found = layer.config.get(option)
    if found is None:
        found = USUAL.get(option)
    if isinstance(expected, list) and type(found) is int:
        found = [found, found]
    if found != expected:
        raise WeightsError(f"{layer}: expected {option} {expected}, found {found}: {OTHER}")


def zeros_before(layer: Layer) -> tuple[int, Layer]:
    """Return (its padding, the next layer) for a ZeroPadding2D; (0, layer) for any other."""
    if layer.kind != "ZeroPadding2D":
        return 0, layer
    expect(layer, "data_format", "channels_last")
    sides = layer.config.get("padding")
    pairs = sides if isinstance(sides, list) else [sides]
    flat = [n for side in pairs for n in (side if isinstance(side, list) else [side])]
    if len(set(flat)) != 1 or type(flat[0]) is not int:
        raise WeightsError(f"{layer}: expected equal padding on all sides, found {sides}")
    return flat[0], only_reader(layer)


def check_convolution(layer: Layer, kernels: tuple[int, ...]) -> int:
    """Check a convolution, and return its kernel size, which must be in ``kernels``."""
    expect_kind(layer, "Conv2D")
    expect(layer, "dilation_rate", [1, 1])
    expect(layer, "groups", 1)
    expect(layer, "data_format", "channels_last")
    if (found := activation_of(layer.config.get("activation"))) != "linear":
        raise WeightsError(f"{layer}: expected a convolution without activation, found {found}")
    kernel = kernel_of(layer)
    if kernel not in [[k, k] for k in kernels]:
        expected = " or ".join(f"{k}x{k}" for k in kernels)
        raise WeightsError(f"{layer}: expected a {expected} kernel, found {kernel}")
    if kernel == [1, 1]:
        expect(layer, "strides", [1, 1])
    return int(kernel[0])


def kernel_of(layer: Layer) -> Any:
    """Return a convolution's kernel size, as declared."""
    kernel = layer.config.get("kernel_size")
    return [kernel, kernel] if type(kernel) is int else kernel


def check_norm(layer: Layer) -> Layer:
    """Check that a layer is a BatchNorm over channels with scale and shift, and return it."""
    expect_kind(layer, "BatchNormalization")
    axis = layer.config.get("axis", -1)
    if axis not in (-1, 3, [-1], [3]):
        raise WeightsError(f"{layer}: expected channels on axis 3, found {axis}: {OTHER}")
    expect(layer, "center", True)
    expect(layer, "scale", True)
    return layer


def check_cast(layer: Layer) -> None:
    """Raise if a layer casts pixels to anything but float32 or float64."""
    given = [value for value in layer.given if isinstance(value, str) and value != READ]
    found = given[0] if given else layer.config.get("dtype")
    if found not in ("float32", "float64"):
        raise WeightsError(f"{layer}: expected a cast to float32, found {found}: {OTHER}")


def relu_after(layer: Layer) -> Layer:
    """Return the ReLU that reads this layer; raise if anything else does."""
    relu = only_reader(layer)
    config = relu.config
    plain = relu.kind == "Relu" or (
        relu.kind == "Activation" and activation_of(config.get("activation")) == "relu"
    )
    if relu.kind == "ReLU":
        slopes = [config.get(name) or 0 for name in ("negative_slope", "threshold")]
        plain = config.get("max_value") is None and not any(map(_number, slopes))
    if not plain:
        found = f", found {activation_of(config['activation'])}" if "activation" in config else ""
        raise WeightsError(f"{relu}: expected a ReLU after {layer}{found}: {OTHER}")
    return relu


def _number(value: Any) -> float:
    while isinstance(value, (dict, list)):  # Keras 2 stored arrays
        value = value[0] if isinstance(value, list) else value["value"]
    return float(value)


def past_idle(layer: Layer) -> tuple[Layer, float]:
    """Skip the layers after this one that do nothing in inference.

    Returns the last skipped layer (or ``layer`` if none is skipped), and a skipped Dropout's rate.
    """
    rate = 0.0
    while len(layer.readers) == 1 and layer.readers[0].kind in IDLE:
        layer = layer.readers[0]
        rate = float(layer.config.get("rate") or 0) if layer.kind == "Dropout" else rate
    return layer, rate


def activation_of(given: Any) -> str:
    """Return the name of a Keras activation ("linear" for none), or describe a custom one."""
    if isinstance(given, dict):
        name = given.get("registered_name") or given.get("class_name")
        inside = given.get("config")
        own = inside if isinstance(inside, str) else name
        return f"a custom one, {own}" if name == "function" else f"a layer {own}"
    return "linear" if given is None else str(given).lower()


def dtype_policy(given: Any) -> str:
    """Return the name of a dtype policy, such as "mixed_float16"; "" for none."""
    inside = given.get("config") if isinstance(given, dict) else {"name": given}
    return str(inside.get("name") or "") if isinstance(inside, dict) else ""


def quantized(given: Any) -> str:
    """Return a dtype policy's quantization mode, such as "int8"; "" if it has none."""
    inside = given.get("config") if isinstance(given, dict) else None
    return str(inside.get("mode") or "") if isinstance(inside, dict) else ""


def same_padding(size: int | None, kernel: int, stride: int) -> tuple[int, int] | None:
    """Return how many zeros padding="same" adds at the start and end of each axis.

    None if these numbers depend on a size that is not declared.
    """
    if stride == 1:
        return (kernel - 1) // 2, kernel // 2
    if size is None:
        return None
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
