"""Whether a declared Keras model is a DenseNet of this package, and which one.

The graph is followed from the images to the outputs. Every layer that decides what is computed is
compared with what this package builds: padding, strides, the order of a concatenation, epsilon,
pooling, activations. What can be expressed is taken over; anything else is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..weights import WeightsError
from ._keras_graph import Graph, Layer

IDLE = (  # layers that change nothing in a prediction
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
    "RandomCrop",
)
ACTIVATIONS = {"linear": "none", "softmax": "softmax", "sigmoid": "sigmoid"}
GLOBAL_POOLS = {"GlobalAveragePooling2D": "avg", "GlobalMaxPooling2D": "max"}
BEFORE = ("Rescaling", "Normalization", "TrueDivide", "Multiply", "Add", "Subtract")
LEAVES = {  # class -> canonical leaves, in the order in which Keras 3 numbers its variables
    "Conv2D": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
    "Dense": ("weight", "bias"),
}


@dataclass
class Declared:
    """What a declaration says about a network.

    Attributes:
        layers: {canonical layer: layer}.
        fields: of ``DenseNetConfig``, those that no tensor shows.
        before: the layers between the images and the stem, which prepare pixels.
        image_size: pixels per side; None: any.
        activation: see ``Usage``; None where the head was left out.
        end: the layer whose output this package's network gives.
        stored: {place: (mean, variance)} of a Normalization that the file keeps as weights.
        notes: sentences for the user.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    before: list[Layer] = field(default_factory=list)
    image_size: int | None = None
    activation: str | None = None
    end: Layer | None = None
    stored: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def declared_network(graph: Graph) -> Declared:
    """The network of a graph. Raises ``WeightsError``, which names the layer that differs."""
    return _Walk(graph).declared


class _Walk:
    def __init__(self, graph: Graph) -> None:
        self.declared = Declared()
        self.drops: set[float] = set()
        shape = graph.input.config.get("batch_shape") or graph.input.config.get("batch_input_shape")
        self._read_size(graph.input, shape)
        x = self._before(graph.input)
        x = self._stem(x)
        last = self._blocks(x)
        self._head(last, graph.output)
        self._same_everywhere()

    # --- Before the network ---------------------------------------------------------------------

    def _read_size(self, layer: Layer, shape: Any) -> None:
        if not isinstance(shape, list) or len(shape) != 4:
            raise WeightsError(f"{layer}: expected images (N, H, W, C), found shape {shape}")
        if shape[1] != shape[2] and None not in shape[1:3]:
            self.declared.notes.append(
                f"it is declared for images of {shape[1]}x{shape[2]}; this package's are square"
            )
        elif shape[1]:
            self.declared.image_size = int(shape[1])

    def _before(self, layer: Layer) -> Layer:
        """Follow what prepares pixels, up to the layer before the stem."""
        while True:
            following = self._only_reader(layer)
            if following.kind in BEFORE:
                self.declared.before.append(following)
            elif following.kind in ("Resizing", "CenterCrop"):
                size = following.config.get("height"), following.config.get("width")
                self.declared.notes.append(
                    f"its layer {following} was left out: this package resizes images itself, "
                    f"here to {size[0]}x{size[1]}"
                )
                if size[0] == size[1]:
                    self.declared.image_size = int(size[0])
            elif following.kind not in (*IDLE, "InputLayer"):
                return layer
            layer = following

    # --- The network ----------------------------------------------------------------------------

    def _stem(self, layer: Layer) -> Layer:
        """The map that the first block reads."""
        padded, following = self._padding(self._only_reader(layer))
        kernel = self._convolution(following, "features.conv0", (3, 7))
        stride, padding = (2, 3) if kernel == 7 else (1, 1)
        self._expect(following, "strides", [stride, stride])
        self._expect_padding(following, padded, padding, kernel, stride)
        if kernel == 3:
            return following
        norm = self._norm(self._only_reader(following), "features.norm0")
        padded, pool = self._padding(self._only_reader(self._relu(norm)))
        self._expect_kind(pool, "MaxPooling2D")
        self._expect(pool, "pool_size", [3, 3])
        self._expect(pool, "strides", [2, 2])
        self._expect_padding(pool, padded, 1, 3, 2)
        return pool

    def _blocks(self, x: Layer) -> Layer:
        """The ReLU after the last BatchNorm."""
        maps: tuple[Layer, ...] = (x,)  # those that the next reader must read, in this order
        block, layer = 1, 0
        pools = set()
        while True:
            source = self._joined(x, maps)
            norm = self._next_norm(source)
            relu = self._relu(norm)
            averaged, padded, following = self._before_convolution(relu)
            if following is None:
                self._norm(norm, "features.norm5")
                if not layer:
                    raise WeightsError(f"{norm}: expected a dense layer, found the end")
                if pools:
                    self.declared.fields["transition_pool"] = pools.pop()
                return relu
            kernel = following.config.get("kernel_size")
            pool = averaged or self._pooled(following)
            if kernel == [1, 1] and pool is not None:
                place = f"features.transition{block}"
                self._norm(norm, f"{place}.norm")
                self._convolution(following, f"{place}.conv", (1,))
                pools.add("avg" if pool.kind.startswith("Average") else "max")
                pool = following if averaged else pool
                if len(pools) > 1:
                    raise WeightsError(f"{pool}: expected the pooling of the transition before")
                x, maps = pool, (pool,)
                block, layer = block + 1, 0
                continue
            layer += 1
            place = f"features.denseblock{block}.denselayer{layer}"
            self._norm(norm, f"{place}.norm1")
            new = following
            if kernel == [1, 1]:
                self._convolution(following, f"{place}.conv1", (1,))
                norm2 = self._norm(self._only_reader(self._past_drops(following)), f"{place}.norm2")
                new = self._only_reader(self._relu(norm2))
                padded, new = self._padding(new)
                self._convolution(new, f"{place}.conv2", (3,))
                self._expect_padding(new, padded, 1, 3, 1)
            else:
                self._convolution(following, f"{place}.conv1", (3,))
                self._expect_padding(following, padded, 1, 3, 1)
            self._expect(new, "strides", [1, 1])
            end, rate = self._dropped(new)
            self.drops.add(rate)
            join = self._only_reader(end)
            self._expect_kind(join, "Concatenate")
            x, maps = join, (*maps, end)

    def _joined(self, x: Layer, maps: tuple[Layer, ...]) -> Layer:
        """The layer itself, once it holds these maps in this order."""
        found = self._maps_in(x)
        if found != maps:
            if set(found) == set(maps):
                raise WeightsError(
                    f"{x}: expected the maps of a block in the order in which they are made (old "
                    "ones first, new ones last), found another order: the same weights would be "
                    "another function"
                )
            raise WeightsError(f"{x}: expected all maps of the block so far, found others")
        return x

    def _maps_in(self, x: Layer) -> tuple[Layer, ...]:
        if x.kind != "Concatenate":
            return (x,)
        if x.config.get("axis") not in (-1, 3):
            raise WeightsError(
                f"{x}: expected a concatenation of channels (axis -1), found {x.config.get('axis')}"
            )
        found: list[Layer] = []
        ahead = list(reversed(x.reads))
        while ahead:
            each = ahead.pop()
            if each.kind == "Concatenate":
                ahead += reversed(each.reads)
            else:
                found.append(each)
        return tuple(found)

    def _next_norm(self, x: Layer) -> Layer:
        norms = [reader for reader in x.readers if reader.kind == "BatchNormalization"]
        others = [r for r in x.readers if r.kind not in ("BatchNormalization", "Concatenate")]
        if len(norms) != 1 or others:
            found = ", ".join(map(str, [*norms, *others])) or "nothing"
            raise WeightsError(f"{x}: expected one BatchNormalization that reads it, found {found}")
        return norms[0]

    def _before_convolution(self, relu: Layer) -> tuple[Layer | None, int, Layer | None]:
        """A pooling by averages before a convolution, zeros before it, and it (None: the end)."""
        after = self._past_drops(relu)
        if not after.readers:
            return None, 0, None
        following = self._only_reader(after)
        if following.kind == "AveragePooling2D" and following.readers:
            conv = self._only_reader(following)
            if conv.kind == "Conv2D":
                self._expect_halving(following)
                return following, 0, conv
        padded, following = self._padding(following)
        return None, padded, following if following.kind == "Conv2D" else None

    def _pooled(self, conv: Layer) -> Layer | None:
        """The pooling after a transition's convolution; None after any other convolution."""
        after = self._only_reader(self._past_drops(conv))
        if after.kind not in ("AveragePooling2D", "MaxPooling2D"):
            return None
        self._expect_halving(after)
        return after

    def _expect_halving(self, pool: Layer) -> None:
        self._expect(pool, "pool_size", [2, 2])
        self._expect(pool, "strides", [2, 2])
        self._expect(pool, "padding", "valid")

    # --- After it -------------------------------------------------------------------------------

    def _head(self, relu: Layer, output: Layer) -> None:
        pooled = self._past_drops(relu)
        self.declared.end = pooled
        if pooled is output:  # maps
            return
        pool = self.declared.end = self._only_reader(pooled)
        if pool.kind in GLOBAL_POOLS:
            self.declared.fields["global_pool"] = GLOBAL_POOLS[pool.kind]
        elif pool.kind == "AveragePooling2D":
            self.declared.notes.append(
                f"its pooling {pool} is of fixed size; this package's is over the whole map: the "
                "same for images of the declared size"
            )
            self._expect_whole(pool)
        else:
            raise WeightsError(
                f"{pool}: expected a global pooling after the last BatchNormalization, "
                "found another layer: the same weights would be another function; what is before "
                "it can be saved alone, as a model without it"
            )
        last = pool
        dense: list[Layer] = []
        activation = "linear"
        while last is not output:
            last = self._only_reader(last)
            if last.kind == "Dense":
                dense.append(last)
            if last.kind == "Dense" and len(dense) == 1:
                activation = _activation(last.config.get("activation"))
            elif (
                last.kind in ("Activation", "Softmax")
                and len(dense) == 1
                and activation == "linear"
            ):
                activation = (
                    "softmax" if last.kind == "Softmax" else _activation(last.config["activation"])
                )
            elif last.kind not in (*IDLE, "Flatten", "Reshape") and not (
                last.kind == "Activation" and _activation(last.config["activation"]) == "linear"
            ):
                self._leave_head_out(pool)
                return
        if not dense:
            return
        if activation not in ACTIVATIONS:
            self._leave_head_out(pool)
            return
        self.declared.layers["classifier"] = self.declared.end = dense[0]
        self.declared.activation = ACTIVATIONS[activation]

    def _leave_head_out(self, pool: Layer) -> None:
        self.declared.notes.append(
            f"what follows its layer {pool} is a head that no DenseNet of this package has; its "
            "body was read, which gives features; num_classes=N makes a new classifier"
        )

    def _expect_whole(self, pool: Layer) -> None:
        size, side = pool.config.get("pool_size"), self.declared.image_size
        steps = 1 + len({n.split(".")[1] for n in self.declared.layers if ".transition" in n})
        steps += "features.norm0" in self.declared.layers
        steps -= "features.norm0" not in self.declared.layers
        if side is None or size != [side >> steps] * 2 or side % (1 << steps):
            raise WeightsError(f"{pool}: expected pooling over the whole map, found {size}")

    # --- Layers ---------------------------------------------------------------------------------

    def _only_reader(self, layer: Layer) -> Layer:
        if len(layer.readers) != 1:
            found = ", ".join(map(str, layer.readers)) or "none"
            raise WeightsError(f"{layer}: expected one layer that reads it, found {found}")
        return layer.readers[0]

    def _padding(self, layer: Layer) -> tuple[int, Layer]:
        """Zeros around a map, and the layer that reads it."""
        if layer.kind != "ZeroPadding2D":
            return 0, layer
        sides = layer.config.get("padding")
        flat = (
            [n for side in sides for n in (side if isinstance(side, list) else [side])]
            if isinstance(sides, list)
            else [sides]
        )
        if len(set(flat)) != 1 or not isinstance(flat[0], int):
            raise WeightsError(f"{layer}: expected equal padding on all sides, found {sides}")
        return flat[0], self._only_reader(layer)

    def _convolution(self, layer: Layer, place: str, kernels: tuple[int, ...]) -> int:
        self._expect_kind(layer, "Conv2D")
        self._expect(layer, "dilation_rate", [1, 1])
        self._expect(layer, "groups", 1)
        self._expect(layer, "data_format", "channels_last")
        if (found := _activation(layer.config.get("activation"))) != "linear":
            raise WeightsError(f"{layer}: expected a convolution without activation, found {found}")
        kernel = layer.config.get("kernel_size")
        if kernel not in ([k, k] for k in kernels):
            expected = " or ".join(f"{k}x{k}" for k in kernels)
            raise WeightsError(f"{layer}: expected a kernel of {expected}, found {kernel}")
        if kernel == [1, 1]:
            self._expect(layer, "strides", [1, 1])
        self.declared.layers[place] = layer
        return int(kernel[0])

    def _expect_padding(
        self, layer: Layer, padded: int, expected: int, kernel: int, stride: int
    ) -> None:
        same = layer.config.get("padding") == "same"
        if same and stride == 1 and not padded:
            found: object = (kernel - 1) // 2
        else:
            found = "SAME, which pads the sides unequally" if same else padded
        if found != expected:
            raise WeightsError(
                f"{layer}: expected {expected} zeros around the map, found {found}: the same "
                "weights would be another function"
            )

    def _norm(self, layer: Layer, place: str) -> Layer:
        self._expect_kind(layer, "BatchNormalization")
        axis = layer.config.get("axis")
        if axis not in (-1, 3, [-1], [3]):
            raise WeightsError(f"{layer}: expected channels on axis 3, found {axis}")
        self._expect(layer, "center", True)
        self._expect(layer, "scale", True)
        self.declared.layers[place] = layer
        return layer

    def _relu(self, layer: Layer) -> Layer:
        relu = self._only_reader(layer)
        config = relu.config
        plain = relu.kind == "Relu" or (
            relu.kind == "Activation" and _activation(config.get("activation")) == "relu"
        )
        if relu.kind == "ReLU":
            plain = config.get("max_value") is None and not any(
                config.get(name) for name in ("negative_slope", "threshold")
            )
        if not plain:
            raise WeightsError(f"{relu}: expected a ReLU after {layer}, found another layer")
        return relu

    def _dropped(self, layer: Layer) -> tuple[Layer, float]:
        rate = 0.0
        while len(layer.readers) == 1 and layer.readers[0].kind in IDLE:
            layer = layer.readers[0]
            rate = float(layer.config.get("rate") or 0) if layer.kind == "Dropout" else rate
        return layer, rate

    def _past_drops(self, layer: Layer) -> Layer:
        return self._dropped(layer)[0]

    @staticmethod
    def _expect_kind(layer: Layer, kind: str) -> None:
        if layer.kind != kind:
            raise WeightsError(f"{layer}: expected a layer of the class {kind} here")

    @staticmethod
    def _expect(layer: Layer, name: str, expected: Any) -> None:
        usual = {"dilation_rate": [1, 1], "groups": 1, "data_format": "channels_last"}
        found = layer.config.get(name, usual.get(name))
        if found is None and name in usual:
            found = usual[name]
        if isinstance(expected, list) and isinstance(found, int):
            found = [found, found]
        if found != expected:
            raise WeightsError(
                f"{layer}: expected {name} {expected}, found {found}: the same weights would be "
                "another function"
            )

    def _same_everywhere(self) -> None:
        """Epsilon, decay and dropout, which one configuration says for all layers."""
        for option, name in (("epsilon", "bn_eps"), ("momentum", "bn_decay")):
            values = {
                layer.config.get(option): layer
                for place, layer in self.declared.layers.items()
                if "norm" in place
            }
            if len(values) > 1:
                last = list(values.values())[-1]
                raise WeightsError(
                    f"{last}: expected the {option} of the other BatchNormalizations, found "
                    f"{', '.join(map(str, values))}"
                )
            (self.declared.fields[name],) = values
        if len(self.drops) == 1:
            (self.declared.fields["drop_rate"],) = self.drops


def _activation(given: Any) -> str:
    """The name of an activation, however it is written."""
    if isinstance(given, dict):
        given = (
            given.get("config", {}).get("name")
            or given.get("registered_name")
            or given.get("class_name")
        )
        if isinstance(given, dict):
            given = given.get("name")
    return "linear" if given is None else str(given).rpartition(">")[2].lower()


# --- What prepares pixels -----------------------------------------------------------------------


def affine(
    layers: list[Layer], stored: Mapping[str, tuple[Any, Any]]
) -> tuple[list[float], list[float]] | None:
    """(a, b): the network reads a x + b, per channel or one for all; None without such layers.

    ``stored`` has the mean and variance of a Normalization that keeps them in the file, by place.
    Raises ``WeightsError`` for a layer that does something else.
    """
    if not layers:
        return None
    scale, shift = [1.0], [0.0]
    for layer in layers:
        by, add = _one_step(layer, stored)
        scale = _zipped(scale, by, lambda s, f: s * f)
        shift = _zipped(_zipped(shift, by, lambda s, f: s * f), add, lambda s, a: s + a)
    return scale, shift


def _one_step(
    layer: Layer, stored: Mapping[str, tuple[Any, Any]]
) -> tuple[list[float], list[float]]:
    try:
        if layer.kind == "Rescaling":
            return _numbers(layer.config["scale"]), _numbers(layer.config["offset"])
        if layer.kind == "Normalization" and not layer.config.get("invert"):
            mean, variance = layer.config.get("mean"), layer.config.get("variance")
            if mean is None:
                mean, variance = stored[layer.place]
            deviations = [max(v**0.5, 1e-7) for v in _numbers(variance)]
            means = _numbers(mean)
            return [1 / d for d in deviations], _zipped(means, deviations, lambda m, d: -m / d)
        numbers = [each for each in layer.others if not isinstance(each, (bool, type(None), str))]
        (value,) = (_numbers(each) for each in numbers)
        return {
            "TrueDivide": ([1 / v for v in value], [0.0]),
            "Multiply": (value, [0.0]),
            "Add": ([1.0], value),
            "Subtract": ([1.0], [-v for v in value]),
        }[layer.kind]
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        raise WeightsError(
            f"{layer}: expected numbers that pixels are scaled and shifted by, found another layer"
        ) from None


def _numbers(value: Any) -> list[float]:
    while isinstance(value, dict):  # a tensor, as Keras writes it
        value = value["config"]["value"]
    if isinstance(value, (list, tuple)):
        while len(value) == 1 and isinstance(value[0], (list, tuple)):
            value = value[0]
        return [float(v) for v in value]
    if hasattr(value, "ravel"):
        return [float(v) for v in value.ravel()]
    return [float(value)]


def _zipped(one: list[float], other: list[float], rule: Any) -> list[float]:
    size = max(len(one), len(other))
    if {len(one), len(other)} - {1, size}:
        raise ValueError("other channels")
    return [rule(one[i % len(one)], other[i % len(other)]) for i in range(size)]
