"""What a port may do differently: each convention as a change of the network, with its remedy.

A ``Convention`` is what a message names. Its ``suspects`` are the ways to break it in a network:
``bn_epsilon``, for example, has one for each epsilon that some framework uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..checkpoint import IMAGENET_MEAN, IMAGENET_STD
from ..reference import max_pool as maxima
from ..reference import relu
from ..spec import DenseNetSpec, PoolSpec
from .network import Array, Change, Norm, Operation, Place

STATISTICS = {  # of the pixels of a data set, from 0 to 1
    "ImageNet": (IMAGENET_MEAN, IMAGENET_STD),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
}
EPSILONS = {  # -> who uses it
    1e-3: "Keras, by default",
    1.001e-5: "keras.applications",
    1e-5: "PyTorch, Gluon and Flax, by default",
    1e-6: "",
}


@dataclass(frozen=True)
class Pixels:
    """How images become what the network reads: (pixels / largest - mean) / std."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def restored(self, x: Array) -> Array:
        """Return the pixels, from 0 to 1, of normalized images (N, C, H, W)."""
        return x * _column(self.std) + _column(self.mean) if self.mean else x

    def normalized(self, x: Array) -> Array:
        """Return normalized images (N, C, H, W) of pixels from 0 to 1."""
        return (x - _column(self.mean)) / _column(self.std) if self.mean else x


def _column(values: tuple[float, ...]) -> Array:
    return np.asarray(values)[:, None, None]


@dataclass(frozen=True)
class Suspect:
    """One way to break a convention.

    Attributes:
        convention: the convention's identifier.
        text: what the port does, after "the port ...".
        changes: what it changes in the network.
        who: who does it, if anybody is known for it.
        stage: the only stage where it applies; "" means everywhere.
        kind: of half precision: "float16" or "bfloat16".
    """

    convention: str
    text: str
    changes: tuple[Change, ...]
    who: str = ""
    stage: str = ""
    kind: str = ""

    def within(self, stage: str) -> Suspect:
        """Return the same, in one stage only."""

        def narrowed(change: Change) -> Change:
            return replace(change, where=lambda place: place.stage == stage and change.where(place))

        return replace(self, stage=stage, changes=tuple(narrowed(c) for c in self.changes))


@dataclass(frozen=True)
class Convention:
    """Something that every port has to decide, and that the shapes do not show.

    Attributes:
        name: the identifier, such as ``"bn_epsilon"``.
        rule: what this package's specification says.
        suspects: returns the ways to break it in a network that reads such pixels.
        remedy: {framework: what to write there}; "" stands for any framework.
    """

    name: str
    rule: str
    suspects: Callable[[DenseNetSpec, Pixels], Iterator[Suspect]]
    remedy: Mapping[str, str]


CONVENTIONS: dict[str, Convention] = {}


def convention(**remedy: str) -> Callable[[Callable[..., Iterator[Suspect]]], Convention]:
    """Register a function that yields suspects as the convention of its name.

    Its docstring is the convention's rule, and ``remedy`` is {framework: what to write there}, or
    what to do ``everywhere``.
    """

    def registered(function: Callable[..., Iterator[Suspect]]) -> Convention:
        name = function.__name__
        texts = {"" if key == "everywhere" else key: text for key, text in remedy.items()}

        def suspects(spec: DenseNetSpec, pixels: Pixels) -> Iterator[Suspect]:
            for suspect in function(spec, pixels):
                yield replace(suspect, convention=name)

        rule = " ".join(str(function.__doc__).split())
        CONVENTIONS[name] = Convention(name, rule, suspects, texts)
        return CONVENTIONS[name]

    return registered


def suspects(spec: DenseNetSpec, pixels: Pixels | None = None) -> list[Suspect]:
    """Return every way to break a convention in this network."""
    read = pixels or Pixels()
    return [each for known in CONVENTIONS.values() for each in known.suspects(spec, read)]


def _everywhere(_: Place) -> bool:
    return True


def _suspect(
    text: str,
    operation: str,
    function: Operation,
    where: Callable[[Place], bool] = _everywhere,
    who: str = "",
) -> Suspect:
    return Suspect("", text, (Change(operation, function, where),), who)


def _at(*ends: str) -> Callable[[Place], bool]:
    return lambda place: place.name.endswith(ends)


STEM = _at("conv0", "norm0", "pool0")
IN_TRANSITION = _at(".pool", ".norm", ".conv")

# --- Images -------------------------------------------------------------------------------------


@convention(
    everywhere="give the channels in the other order: images[:, ::-1] (NCHW) or "
    "images[..., ::-1] (NHWC); OpenCV and some Keras helpers read blue first",
)
def channels_reversed(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """The network reads red, green and blue, in this order."""
    if spec.config.in_channels > 1:
        yield _suspect(
            "reads the image's channels in reverse order (BGR)",
            "image",
            lambda op, at, x: op(at, x[:, ::-1]),
            who="OpenCV, caffe-style preprocessing",
        )


@convention(
    everywhere="scale the pixels once, with the range, mean and std that the weights file states",
)
def value_range(_: DenseNetSpec, pixels: Pixels) -> Iterator[Suspect]:
    """The network reads pixels in the range of its training, minus mean, divided by std."""
    raw, scaled = pixels.restored, pixels.normalized
    ways: dict[str, Callable[[Array], Array]] = {
        "reads pixels from 0 to 255": lambda x: 255 * raw(x),
        "reads pixels from -1 to 1 (mean and std 0.5)": lambda x: 2 * raw(x) - 1,
        "divides pixels by 255 that are from 0 to 1 already": lambda x: scaled(raw(x) / 255),
    }
    if pixels.mean:
        ways["normalizes pixels from 0 to 255 as if they were from 0 to 1"] = lambda x: scaled(
            255 * raw(x)
        )
        ways["reads pixels from 0 to 1, without mean and std"] = raw
        ways["subtracts the mean and divides by the std twice"] = scaled
    for text, way in ways.items():
        yield _suspect(text, "image", lambda op, at, x, way=way: op(at, way(x)))


@convention(
    everywhere="use the mean and std that the weights file states",
)
def pixel_statistics(spec: DenseNetSpec, pixels: Pixels) -> Iterator[Suspect]:
    """The network reads pixels minus the mean, divided by the std, of its own training data."""
    if spec.config.in_channels != 3:  # the data sets below are in color
        return
    for name, (mean, std) in STATISTICS.items():
        other = Pixels(mean, std)
        if other != pixels:
            yield _suspect(
                f"normalizes pixels with the mean and std of {name}",
                "image",
                lambda op, at, x, other=other: op(at, other.normalized(pixels.restored(x))),
            )


@convention(
    everywhere="use transpose(0, 3, 1, 2), or permute, instead of reshape",
)
def image_reshaped(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """Images change from NHWC to NCHW by a transposition."""
    if spec.config.in_channels == 1:
        return  # then both are the same

    def to_channels_last(op: Operation, at: Place, x: Array) -> Array:
        n, c, h, w = x.shape
        return op(at, x.reshape(n, h, w, c).transpose(0, 3, 1, 2))

    def to_channels_first(op: Operation, at: Place, x: Array) -> Array:
        return op(at, x.transpose(0, 2, 3, 1).reshape(x.shape))

    yield _suspect("reshapes NCHW images to NHWC", "image", to_channels_last)
    yield _suspect("reshapes NHWC images to NCHW", "image", to_channels_first)


# --- Convolutions -------------------------------------------------------------------------------


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return what SAME pads: before, after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _padded(x: Array, height: tuple[int, int], width: tuple[int, int], value: float = 0) -> Array:
    return np.pad(x, ((0, 0), (0, 0), height, width), constant_values=value)


@convention(
    torch="nn.Conv2d(..., stride=2, padding=3)",
    keras='ZeroPadding2D(3), then Conv2D(..., strides=2, padding="valid")',
    gluon="nn.Conv2D(..., strides=2, padding=3)",
    flax="nnx.Conv(..., strides=2, padding=3)",
)
def same_padding(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """The stem's 7x7 convolution pads 3 pixels on every side."""
    if spec.stem.conv0.stride == 1:
        return  # then SAME pads as much

    def same(op: Operation, at: Place, x: Array, kernel: Array, *more: Any) -> Array:
        bias, conv = more
        height, width = (_same(size, kernel.shape[-1], conv.stride) for size in x.shape[2:])
        return op(at, _padded(x, height, width), kernel, bias, replace(conv, padding=0))

    def unpadded(op: Operation, at: Place, x: Array, kernel: Array, *more: Any) -> Array:
        bias, conv = more
        return op(at, x, kernel, bias, replace(conv, padding=0))

    who = "KerasHub, the TensorFlow and JAX tabs of the book"
    yield _suspect("pads the stem's convolution SAME", "convolution", same, STEM, who)
    yield _suspect("does not pad the stem's convolution", "convolution", unpadded, STEM)


def _turned(turn: Callable[[Array], Array]) -> Operation:
    def turned(op: Operation, at: Place, x: Array, kernel: Array, *more: Any) -> Array:
        return op(at, x, turn(kernel), *more)

    return turned


@convention(
    everywhere="transpose kernels with (2, 3, 1, 0) from OIHW to HWIO, with (3, 2, 0, 1) back; "
    "another order exchanges height and width",
)
def kernel_transposed(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """Kernels are (out, in, height, width)."""
    yield _suspect(
        "exchanges height and width of the kernels",
        "convolution",
        _turned(lambda kernel: kernel.swapaxes(2, 3)),
    )


@convention(
    everywhere="do not flip kernels; Theano and SciPy's convolve do",
)
def kernel_flipped(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """Convolutions are cross-correlations: the kernel is not flipped."""
    yield _suspect(
        "flips the kernels in height and width",
        "convolution",
        _turned(lambda kernel: kernel[:, :, ::-1, ::-1]),
        who="Theano",
    )


@convention(
    everywhere="use transpose(2, 3, 1, 0) from OIHW to HWIO, instead of reshape",
)
def kernel_reshaped(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """Kernels change their layout by a transposition."""

    def reshaped(kernel: Array) -> Array:
        o, i, h, w = kernel.shape
        return kernel.reshape(h, w, i, o).transpose(3, 2, 0, 1)

    yield _suspect("reads the memory of OIHW kernels as HWIO", "convolution", _turned(reshaped))


@convention(
    everywhere="transpose the classifier's weights instead of reshaping them",
)
def classifier_reshaped(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """Linear weights are (out, in)."""
    if spec.classifier:
        yield _suspect(
            "reads the memory of the classifier's (out, in) weights as (in, out)",
            "classification",
            lambda op, at, x, weight, bias: op(at, x, weight.reshape(weight.shape[::-1]).T, bias),
        )


# --- Pooling ------------------------------------------------------------------------------------


@convention(
    torch="nn.MaxPool2d(3, stride=2, padding=1)",
    keras='ZeroPadding2D(1), then MaxPooling2D(3, 2, padding="valid")',
    gluon="nn.MaxPool2D(3, 2, padding=1)",
    flax="nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))",
)
def pool_padding(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """The stem's 3x3 max pool pads 1 pixel on every side."""
    if not spec.stem.pool0:
        return

    def same(op: Operation, at: Place, x: Array, pool: PoolSpec, kind: str) -> Array:
        height, width = (_same(size, pool.kernel_size, pool.stride) for size in x.shape[2:])
        value = -np.inf if kind == "max" else 0
        return op(at, _padded(x, height, width, value), replace(pool, padding=0), kind)

    def unpadded(op: Operation, at: Place, x: Array, pool: PoolSpec, kind: str) -> Array:
        return op(at, x, replace(pool, padding=0), kind)

    who = "KerasHub, the TensorFlow and JAX tabs of the book"
    yield _suspect("pads the stem's max pool SAME", "pooling", same, STEM, who)
    yield _suspect("does not pad the stem's max pool", "pooling", unpadded, STEM)


@convention(
    torch="nn.AvgPool2d(2, stride=2), without ceil_mode",
    keras='AveragePooling2D(2, 2), padding="valid"',
    gluon="nn.AvgPool2D(2, 2), without ceil_mode",
    flax='nnx.avg_pool(x, (2, 2), (2, 2)), padding "VALID"',
)
def pool_rounding(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """The pools of the transitions round down: they drop the last row and column of an odd map."""

    def up(op: Operation, at: Place, x: Array, pool: PoolSpec, kind: str) -> Array:
        height, width = ((0, size % 2) for size in x.shape[2:])
        if kind == "max":
            return op(at, _padded(x, height, width, -np.inf), pool, kind)
        sums = op(at, _padded(x, height, width), pool, kind)
        shares = op(at, _padded(np.ones_like(x[:1, :1]), height, width), pool, kind)
        return np.asarray(sums / shares)

    def up_with_zeros(op: Operation, at: Place, x: Array, pool: PoolSpec, kind: str) -> Array:
        height, width = ((0, size % 2) for size in x.shape[2:])
        return op(at, _padded(x, height, width), pool, kind)

    yield _suspect("rounds up in the transitions' pools", "pooling", up, IN_TRANSITION)
    yield _suspect(
        "rounds up in the transitions' pools, and counts the padding",
        "pooling",
        up_with_zeros,
        IN_TRANSITION,
    )


@convention(
    torch="nn.AvgPool2d in a transition, nn.MaxPool2d in the stem",
    keras="AveragePooling2D in a transition, MaxPooling2D in the stem",
    gluon="nn.AvgPool2D in a transition, nn.MaxPool2D in the stem",
    flax="nnx.avg_pool in a transition, nnx.max_pool in the stem",
)
def max_pool(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """The stem takes maxima; the transitions average, unless transition_pool says otherwise."""

    def other(op: Operation, at: Place, x: Array, pool: PoolSpec, kind: str) -> Array:
        return op(at, x, pool, "avg" if kind == "max" else "max")

    words = {"avg": ("maxima", "means"), "max": ("means", "maxima")}
    wrong, right = words[spec.config.transition_pool]
    yield _suspect(
        f"takes {wrong} instead of {right} in the transitions", "pooling", other, IN_TRANSITION
    )
    if spec.stem.pool0:
        yield _suspect("averages in the stem's pool", "pooling", other, STEM)


@convention(
    everywhere="convolve first, then pool; only averages may be taken before the convolution",
)
def pool_order(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """A transition convolves, then pools."""
    transition = spec.stages[0][1]
    if transition is None or transition.pool_kind != "max":  # averages commute with a convolution
        return
    pool = transition.pool

    def after_pooling(op: Operation, at: Place, x: Array, *more: Any) -> Array:
        return op(at, maxima(pool, x), *more)

    yield Suspect(
        "",
        "takes the maxima before the transitions' convolutions",
        (
            Change("convolution", after_pooling, IN_TRANSITION),
            Change("pooling", lambda _op, _at, x, *_: x, IN_TRANSITION),
        ),
    )


@convention(
    torch="x.mean((2, 3))",
    keras="GlobalAveragePooling2D()",
    gluon="nn.GlobalAvgPool2D()",
    flax="x.mean((1, 2))",
)
def global_pool(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """The last pool averages over the whole map, unless global_pool says otherwise."""
    other = "max" if spec.global_pool == "avg" else "avg"
    word = "the maximum" if other == "max" else "the mean"
    yield _suspect(
        f"takes {word} of each last map",
        "global_pooling",
        lambda op, at, x, _kind: op(at, x, other),
    )


# --- BatchNorm ----------------------------------------------------------------------------------


@convention(
    torch="nn.BatchNorm2d(channels, eps={eps:g})",
    keras="BatchNormalization(epsilon={eps:g})",
    gluon="nn.BatchNorm(epsilon={eps:g})",
    flax="nnx.BatchNorm(channels, epsilon={eps:g})",
)
def bn_epsilon(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """BatchNorm divides by sqrt(variance + epsilon), with the specification's bn_eps."""
    for epsilon, who in EPSILONS.items():
        if epsilon != spec.config.bn_eps:
            yield _suspect(
                f"has an epsilon of {epsilon:g}",
                "normalization",
                lambda op, at, x, norm, e=epsilon: op(at, x, norm._replace(epsilon=e)),
                who=who,
            )


@convention(
    torch="model.eval()",
    keras="model(x, training=False)",
    gluon="call the model outside of autograd.record()",
    flax="model.eval()",
)
def batch_statistics(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """In evaluation, BatchNorm normalizes with the running statistics."""

    def of_the_batch(op: Operation, at: Place, x: Array, norm: Norm) -> Array:
        axes = (0, 2, 3)
        return op(at, x, norm._replace(mean=x.mean(axis=axes), variance=x.var(axis=axes)))

    yield _suspect(
        "normalizes with the statistics of the batch (training mode)",
        "normalization",
        of_the_batch,
    )


@convention(
    everywhere="check the names with which the four arrays of a BatchNorm are loaded; it needs the "
    "variance, not the standard deviation",
)
def bn_arrays(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """BatchNorm reads the weight, bias, running mean and running variance, each as what it is."""

    def read(text: str, change: Callable[[Norm], Norm]) -> Suspect:
        return _suspect(text, "normalization", lambda op, at, x, norm: op(at, x, change(norm)))

    yield read(
        "exchanges weight and bias of the BatchNorms",
        lambda n: n._replace(weight=n.bias, bias=n.weight),
    )
    yield read(
        "exchanges mean and variance of the BatchNorms",
        lambda n: n._replace(mean=n.variance, variance=n.mean),
    )
    yield read(
        "takes the running variance for the standard deviation",
        lambda n: n._replace(variance=n.variance**2),
    )
    yield read(
        "takes the square root of the running variance twice",
        lambda n: n._replace(variance=np.sqrt(n.variance)),
    )
    yield read(
        "did not load the running statistics: mean 0, variance 1",
        lambda n: n._replace(mean=0 * n.mean, variance=0 * n.variance + 1),
    )
    yield read(
        "did not load weight and bias of the BatchNorms: 1 and 0",
        lambda n: n._replace(weight=0 * n.weight + 1, bias=0 * n.bias),
    )


# --- ReLU and order -----------------------------------------------------------------------------

NORM_THEN_RELU = {
    "torch": "F.relu(norm(x))",
    "keras": "keras.ops.relu(norm(x))",
    "gluon": "F.relu(norm(x))",
    "flax": "nnx.relu(norm(x))",
}
RELUS = {
    "norm0": "after the stem's BatchNorm",
    "norm1": "after the first BatchNorm of the dense layers",
    "norm2": "after the second BatchNorm of the dense layers",
    ".norm": "in the transitions",
    "norm5": "before the last pool",
}


@convention(**NORM_THEN_RELU)
def relu_missing(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """Each BatchNorm is followed by a ReLU; the one after norm5 belongs to the head."""
    absent = set()
    if not spec.stem.norm0:
        absent.add("norm0")
    if not spec.stages[0][0].layers[0].norm2:
        absent.add("norm2")
    for end, where in RELUS.items():
        if end not in absent:
            yield _suspect(f"has no ReLU {where}", "activation", lambda _op, _at, x: x, _at(end))


@convention(**NORM_THEN_RELU)
def relu_before_norm(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """The BatchNorm comes first, then the ReLU."""
    yield Suspect(
        "",
        "applies each ReLU before the BatchNorm instead of after it",
        (
            Change("normalization", lambda op, at, x, norm: op(at, relu(x), norm), _everywhere),
            Change("activation", lambda _op, _at, x: x, _everywhere),
        ),
    )


@convention(
    everywhere="remove this ReLU",
)
def relu_added(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """No ReLU follows a convolution directly, except in the stem, after its BatchNorm."""
    yield _suspect(
        "has a ReLU after each dense layer",
        "concatenation",
        lambda op, at, old, new: op(at, old, relu(new)),
    )
    if any(transition for _, transition in spec.stages):
        yield _suspect(
            "has a ReLU after the transitions",
            "pooling",
            lambda op, at, *args: relu(op(at, *args)),
            IN_TRANSITION,
        )
    if not spec.stem.norm0:
        yield _suspect(
            "has a ReLU after the stem's convolution",
            "convolution",
            lambda op, at, *args: relu(op(at, *args)),
            STEM,
        )


@convention(
    everywhere="take the features before the last ReLU, or apply it to the other ones too",
)
def features_after_relu(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """The last ReLU belongs to the head: features end with norm5."""
    yield _suspect(
        "returns norm5 after the last ReLU",
        "normalization",
        lambda op, at, x, norm: relu(op(at, x, norm)),
        _at("norm5"),
        who="timm, Keras with include_top=False",
    )


@convention(
    torch="torch.cat([x, new], dim=1)",
    keras="keras.ops.concatenate([x, new], axis=-1)",
    gluon="F.concat(x, new, dim=1)",
    flax="jnp.concatenate([x, new], axis=-1)",
)
def concat_order(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """A concatenation has the old channels first and the new ones last."""
    yield _suspect(
        "puts the new channels before the old ones",
        "concatenation",
        lambda op, at, old, new: op(at, new, old),
        who="pytorch-cifar",
    )


# --- Outputs ------------------------------------------------------------------------------------


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


@convention(
    everywhere="remove the last activation: classifier_activation=None in keras.applications, "
    "from_logits=True in a Keras loss",
)
def softmax_output(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """The network returns logits; the loss or the caller applies a softmax."""
    ways = {
        "a softmax": (_softmax, "keras.applications"),
        "the logarithm of a softmax": (lambda x: np.log(_softmax(x)), ""),
        "a sigmoid": (_sigmoid, ""),
    }
    for name, (way, who) in ways.items():
        yield _suspect(
            f"applies {name} to the logits",
            "result",
            lambda op, at, x, way=way: op(at, way(x)),
            who=who,
        )


@convention(
    everywhere="load classifier.bias",
)
def bias_missing(spec: DenseNetSpec, _: Pixels) -> Iterator[Suspect]:
    """The classifier adds its bias."""
    if spec.classifier:
        yield _suspect(
            "did not load the classifier's bias",
            "classification",
            lambda op, at, x, weight, bias: op(at, x, weight, 0 * bias),
        )
    if spec.config.conv_bias:
        yield _suspect(
            "did not load the biases of the convolutions",
            "convolution",
            lambda op, at, x, kernel, _bias, conv: op(at, x, kernel, None, conv),
        )


# --- Precision ----------------------------------------------------------------------------------


def _to_float16(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float64)


def _to_bfloat16(x: Array) -> Array:
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = bits + 0x7FFF + (bits >> 16 & 1)  # to even
    return (nearest & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


ROUNDED: dict[str, Callable[[Array], Array]] = {"float16": _to_float16, "bfloat16": _to_bfloat16}


@convention(
    everywhere="build and call the network in float32: no .half(), no autocast, no mixed precision "
    'policy; on a GPU, also jax_default_matmul_precision="highest" and no TF32',
)
def half_precision(_: DenseNetSpec, __: Pixels) -> Iterator[Suspect]:
    """Weights and activations are float32 or float64."""
    for kind, rounded in ROUNDED.items():

        def in_half(
            op: Operation, at: Place, *args: Any, rounded: Callable[[Array], Array] = rounded
        ) -> Array:
            arrays = [rounded(each) if isinstance(each, np.ndarray) else each for each in args]
            return rounded(op(at, *arrays))

        anywhere = ("convolution", "classification", "pooling")
        changes = tuple(Change(name, in_half, _everywhere) for name in anywhere)
        yield Suspect("", f"computes in {kind}", changes, kind=kind)
