"""Decide whether a declared Keras model is a DenseNet of this package, and which one.

The graph is followed from the images to the outputs. Every layer that affects the result is
compared with what this package builds: padding, strides, the order of a concatenation, epsilon,
pooling, activations. Settings that this package supports are adopted; any other setting or layer
raises an error that names the layer.
"""

from __future__ import annotations

from typing import Any

from ..._checks import listed
from ...weights import WeightsError
from .._chapter import pads_same
from .found import Declared
from .graph import DAMAGE, SAVE, Graph, Layer, typed
from .head import is_head, read_head
from .layers import (
    IDLE,
    OTHER,
    check_cast,
    check_convolution,
    check_norm,
    dtype_policy,
    expect,
    expect_kind,
    kernel_of,
    only_reader,
    past_idle,
    quantized,
    relu_after,
    zeros_before,
)
from .pixels import SCALING, SIZING, check_axis
from .size import MapSize

NEXT = "Keep using this model in Keras, or train a network of this package"
CHAPTER = {"DenseBlock", "TransitionBlock"}  # classes of Dive into Deep Learning, in any module


def declared_network(graph: Graph) -> Declared:
    """Return the DenseNet that a graph declares. A ``WeightsError`` names a layer that differs."""
    if {layer.kind.rpartition(".")[2].rpartition(">")[2] for layer in graph.layers} >= CHAPTER:
        raise WeightsError(pads_same("Keras"))
    kinds = {layer.kind: layer for layer in graph.layers}
    if not any(kind in ("Concatenate", "Lambda", "TFOpLambda") or "." in kind for kind in kinds):
        if wrapper := kinds.get("TimeDistributed"):
            inside = f"{typed(wrapper.path)}.layer"
            raise WeightsError(
                f"{wrapper}: expected a network that reads one image, found one that reads "
                f"several images. Save the model inside this layer: {SAVE.format(inside)}"
            )
        raise WeightsError(
            "expected a DenseNet, which concatenates feature maps; found a model without a "
            "Concatenate layer"
        )
    walk = _Walk()
    found = walk.declared
    try:
        walk.follow(graph)
        found.alone = _part_alone(graph, None)
    except WeightsError as error:
        if not walk.at:
            raise
        alone = NEXT if walk.at == "body" else _part_alone(graph, walk.last)
        raise WeightsError(f"{error}. {alone}") from None
    except DAMAGE as error:
        raise WeightsError(
            f"expected a Keras model config, found a damaged one ({error!r:.80})"
        ) from None
    found.notes += notes_of_classes(graph)
    policies = {dtype_policy(layer.config.get("dtype")) for layer in found.layers.values()}
    if halves := sorted(policy for policy in policies if "16" in policy):
        found.notes.append(
            f"its layers compute in {', '.join(halves)}; here they compute in the weights' own "
            "dtype, so outputs differ in the third digit"
        )
    return found


def before_network(declared: Declared, images: Layer) -> Layer:
    """Record the layers that preprocess pixels; return the last layer before the network."""
    shape = images.config.get("batch_shape") or images.config.get("batch_input_shape")
    _read_size(declared, images, shape)
    layer = images
    while True:
        joins = {la for la in layer.readers if la.kind == "Concatenate"}
        if [set(join.reads) for join in joins] == [{layer}]:
            raise WeightsError(
                f"{layer.readers[0]}: expected a layer that reads the images, found one that "
                "repeats them; convert the layers after it with in_channels=1: outputs are the same"
            )
        following = only_reader(layer)
        if following.kind in SCALING:
            check_axis(following)
            declared.before.append(following)
        elif following.kind in SIZING:
            size = following.config.get("height"), following.config.get("width")
            declared.notes.append(
                f"its layer {following} was ignored: this package resizes images itself, "
                f"here to {size[0]}x{size[1]}"
            )
            declared.image_size = int(size[0] or 0) or None if size[0] == size[1] else None
        elif following.kind == "Cast":
            check_cast(following)
        elif following.kind not in (*IDLE, "InputLayer"):
            return layer
        layer = following


def _read_size(declared: Declared, layer: Layer, shape: Any) -> None:
    if not isinstance(shape, list) or len(shape) != 4:
        raise WeightsError(f"{layer}: expected images (N, H, W, C), found shape {shape}")
    if shape[1] != shape[2] and None not in shape[1:3]:
        declared.notes.append(
            f"it is declared for {shape[1]}x{shape[2]} images; this package uses square images"
        )
    elif shape[1] and shape[2]:
        declared.image_size = int(shape[1])


def notes_of_classes(graph: Graph) -> list[str]:
    """Return a note if any model in the graph is of a custom class; otherwise none."""
    if not graph.own:
        return []
    note = (
        f"its model is of a custom class ({listed(graph.own)}), which may compute something "
        "other than its declared layers; the network was read from those layers"
    )
    return [note]


def _part_alone(graph: Graph, last: Layer | None) -> str:
    """Return advice: what to type to save the network without the layers before or after it.

    ``last`` is the network's last ReLU, if found.
    """
    if last is not None:
        part = f"keras.Model({typed(last.path[:-1])}.input, {typed(last.path)}.output)"
        return f"To compute features, save the part before the head: {SAVE.format(part)}"
    stems = [la for la in graph.layers if la.kind == "Conv2D" and kernel_of(la) != [1, 1]]
    stem = next((la for la in stems if kernel_of(la) == [7, 7]), stems[0] if stems else None)
    if stem is None or not stem.reads:
        return NEXT
    first = stem.reads[0] if stem.reads[0].kind == "ZeroPadding2D" else stem
    if not first.reads or first.reads[0] is graph.input:
        return NEXT
    part = f"keras.Model({typed(first.path)}.input, {typed(first.path[:-1])}.output)"
    return (
        "If a DenseNet follows, preprocess images as this model does, and save only the DenseNet: "
        f"{SAVE.format(part)}"
    )


class _Walk:
    def __init__(self) -> None:
        self.declared = Declared()
        self.at = "before"  # or "body", or "head"; "" when done
        self.last: Layer | None = None  # the ReLU before the head
        self.drops: set[float] = set()
        self.left_out: list[Layer] = []
        self.joined: dict[Layer, int] = {}  # concatenation -> how many of the block's maps it holds
        self.map = MapSize()

    def follow(self, graph: Graph) -> None:
        """Record what is declared, from the images to the outputs."""
        x = before_network(self.declared, graph.input)
        self.map.size = self.declared.image_size
        last = self._blocks(self._stem(x))
        self._same_width()
        self.at, self.last = "head", last
        read_head(self.declared, last, graph.outputs, self.map.size)
        self.at = "body"
        self._same_everywhere()
        self.at = ""
        self._check_floating()

    # --- The network ----------------------------------------------------------------------------

    def _stem(self, layer: Layer) -> Layer:
        """Follow the stem; return its last layer, which the first block reads."""
        zeros, following = zeros_before(only_reader(layer))
        kernel = self._convolution(following, "features.conv0", (3, 7))
        self.at = "body"
        stride, padding = (2, 3) if kernel == 7 else (1, 1)
        self.map.step(following, zeros, kernel, stride, padding)
        if kernel == 3:
            return following
        norm = self._norm(only_reader(following), "features.norm0")
        zeros, pool = zeros_before(only_reader(relu_after(norm)))
        expect_kind(pool, "MaxPooling2D")
        expect(pool, "pool_size", [3, 3])
        expect(pool, "data_format", "channels_last")
        self.map.step(pool, zeros, 3, 2, 1)  # after a ReLU, zeros do not change a maximum
        return pool

    def _blocks(self, x: Layer) -> Layer:
        """Follow blocks and transitions; return the ReLU after the last BatchNorm."""
        x = self._past_drops(x)
        maps: tuple[Layer, ...] = (x,)  # what the next layer must read, in this order
        block, layer = 1, 0
        pools: dict[str, Layer] = {}
        while True:
            self._check_joined(x, maps)
            norm = self._next_norm(x)
            relu = relu_after(norm)
            averaged, zeros, following = self._before_convolution(relu)
            if following is None:
                self._norm(norm, "features.norm5")
                if not layer:
                    raise WeightsError(f"{norm}: expected a dense layer, found the network's end")
                self.declared.fields.update(("transition_pool", kind) for kind in pools)
                return relu
            pool = averaged or self._pool_after(following)
            if pool is not None:
                place = f"features.transition{block}"
                self._norm(norm, f"{place}.norm")
                self._convolution(following, f"{place}.conv", (1,))
                self._expect_no_zeros(following, zeros)
                self.map.halve(pool)
                pools["avg" if pool.kind.startswith("Average") else "max"] = pool
                if len(pools) > 1:
                    raise WeightsError(
                        f"{pool}: expected the same pooling in all transitions, found another in "
                        f"{next(iter(pools.values()))}: {OTHER}"
                    )
                x = self._past_drops(following if averaged else pool)
                maps, self.joined = (x,), {}
                block, layer = block + 1, 0
                continue
            layer += 1
            end = self._dense_layer(
                norm, following, zeros, f"features.denseblock{block}.denselayer{layer}"
            )
            x, maps = self._join_of(end), (*maps, end)

    def _dense_layer(self, norm: Layer, conv: Layer, zeros: int, place: str) -> Layer:
        """Follow a dense layer; return the layer whose output its block concatenates."""
        self._norm(norm, f"{place}.norm1")
        kernel = self._convolution(conv, f"{place}.conv1", (1, 3))
        if kernel == 1:
            self._expect_no_zeros(conv, zeros)
            norm2 = self._norm(only_reader(self._past_drops(conv)), f"{place}.norm2")
            zeros, conv = zeros_before(only_reader(relu_after(norm2)))
            self._convolution(conv, f"{place}.conv2", (3,))
        self.map.step(conv, zeros, 3, 1, 1)
        end, rate = past_idle(conv)
        self.drops.add(rate)
        while conv is not end:
            conv = conv.readers[0]
            self.left_out += [conv] if conv.kind != "Dropout" else []
        return end

    def _join_of(self, end: Layer) -> Layer:
        """Return the first of the concatenations that read a dense layer's output."""
        joins = [reader for reader in end.readers if reader.kind == "Concatenate"]
        if not joins or len(joins) != len(end.readers):
            others = [reader for reader in end.readers if reader.kind != "Concatenate"]
            raise WeightsError(
                f"{(others or [end])[0]}: expected a Concatenate after {end}, of all feature "
                f"maps of the block so far; no DenseNet of this package has another layer here"
            )
        return min(joins, key=lambda join: len(join.reads))

    def _check_joined(self, x: Layer, maps: tuple[Layer, ...]) -> None:
        """Raise unless a layer's output consists of these maps, in this order."""
        found = self._maps_in(x, maps)
        if found != maps:
            if set(found) == set(maps):
                raise WeightsError(
                    f"{x}: expected a block's maps in the order of their computation (old ones "
                    f"first, new ones last), found another order: {OTHER}"
                )
            raise WeightsError(f"{x}: expected all maps of the block so far, found different ones")
        self.joined[x] = len(maps)

    def _maps_in(self, x: Layer, maps: tuple[Layer, ...]) -> tuple[Layer, ...]:
        found: list[Layer] = []
        ahead = [x]
        while ahead and len(found) <= len(maps):
            each = ahead.pop()
            if each in self.joined:
                found += maps[: self.joined[each]]
            elif each.kind != "Concatenate":
                found.append(each)
            else:
                if each.config.get("axis", -1) not in (-1, 3):
                    raise WeightsError(
                        f"{each}: expected a concatenation of channels (axis -1), found "
                        f"{each.config.get('axis')}"
                    )
                ahead += reversed(each.reads)
        return tuple(found)

    def _next_norm(self, x: Layer) -> Layer:
        norms = [reader for reader in x.readers if reader.kind == "BatchNormalization"]
        others = [r for r in x.readers if r.kind not in ("BatchNormalization", "Concatenate")]
        if len(norms) != 1 or others:
            found = ", ".join(map(str, [*others, *norms][:6])) or "the end of the model"
            raise WeightsError(
                f"{x}: expected exactly one BatchNormalization to read it, found {found}; no "
                "DenseNet of this package computes this"
            )
        return norms[0]

    def _before_convolution(self, relu: Layer) -> tuple[Layer | None, int, Layer | None]:
        """Return (average pooling, zero padding, convolution) after a ReLU.

        The pooling is None if there is none; the convolution is None at the end of the network.
        """
        after = self._past_drops(relu)
        inside = ("Conv2D", "ZeroPadding2D", "Concatenate", "BatchNormalization")
        if len(after.readers) != 1 and not any(r.kind in inside for r in after.readers):
            return None, 0, None
        following = only_reader(after)
        if following.kind == "AveragePooling2D" and following.readers:
            conv = following.readers[0]
            if conv.kind == "Conv2D" and len(following.readers) == 1:
                if kernel_of(conv) != [1, 1]:
                    raise WeightsError(f"{following}: expected pooling only in a transition")
                return following, 0, conv
        zeros, following = zeros_before(following)
        if following.kind != "Conv2D" or is_head(following):
            return None, 0, None
        return None, zeros, following

    def _pool_after(self, conv: Layer) -> Layer | None:
        """Return the pooling after a transition's convolution; None after other convolutions."""
        if kernel_of(conv) != [1, 1]:
            return None
        after = past_idle(conv)[0]
        if len(after.readers) != 1 or not after.readers[0].kind.endswith("Pooling2D"):
            return None
        self._past_drops(conv)
        pool = after.readers[0]
        if pool.kind not in ("AveragePooling2D", "MaxPooling2D"):
            raise WeightsError(f"{pool}: expected 2x2 average or max pooling in a transition")
        return pool

    # --- Its layers -----------------------------------------------------------------------------

    def _convolution(self, layer: Layer, place: str, kernels: tuple[int, ...]) -> int:
        kernel = check_convolution(layer, kernels)
        self.declared.layers[place] = layer
        return kernel

    def _norm(self, layer: Layer, place: str) -> Layer:
        self.declared.layers[place] = check_norm(layer)
        return layer

    def _past_drops(self, layer: Layer) -> Layer:
        after = past_idle(layer)[0]
        while layer is not after:
            layer = layer.readers[0]
            self.left_out.append(layer)
        return after

    def _expect_no_zeros(self, conv: Layer, zeros: int) -> None:
        if zeros:
            raise WeightsError(f"{conv}: expected no zero padding, found {zeros}: {OTHER}")

    def _check_floating(self) -> None:
        for layer in self.declared.layers.values():
            if mode := quantized(layer.config.get("dtype")):
                raise WeightsError(
                    f"{layer}: expected floating-point weights, found quantized ones ({mode}); "
                    "save the model before quantize() changes it"
                )

    def _same_width(self) -> None:
        """Check that layers agree on use_bias and filters: a configuration has one of each."""
        first: dict[str, Layer] = {}
        for place, layer in self.declared.layers.items():
            if layer.kind != "Conv2D":
                continue
            inside = place.rpartition(".")[2] if "denselayer" in place else ""
            checks = {"use_bias": True, **({"filters": None} if inside else {})}
            for option, usual in checks.items():
                of = f"{inside}{option}" if option == "filters" else option
                expected = first.setdefault(of, layer).config.get(option, usual)
                if layer.config.get(option, usual) != expected:
                    raise WeightsError(
                        f"{layer}: expected {option} {expected} as in {first[of]}, found "
                        f"{layer.config.get(option, usual)}; no DenseNet of this package has both"
                    )

    def _same_everywhere(self) -> None:
        """Record epsilon, decay and dropout rate; a configuration has one value of each."""
        fields, notes = self.declared.fields, self.declared.notes
        norms = [layer for place, layer in self.declared.layers.items() if "norm" in place]
        for option, name, usual in (("epsilon", "bn_eps", 1e-3), ("momentum", "bn_decay", 0.99)):
            values = {layer.config.get(option, usual): layer for layer in norms}
            fields[name] = next(iter(values))
            if len(values) > 1:
                all_values = ", ".join(map(str, values))
                if name == "bn_eps":
                    raise WeightsError(
                        f"{list(values.values())[-1]}: expected one {option} in all "
                        f"BatchNormalizations, found {all_values}: {OTHER}"
                    )
                notes.append(
                    f"its BatchNormalizations have different momentums ({all_values}), which "
                    "matter only in training; the first is used"
                )
        if len(self.drops) == 1:
            (fields["drop_rate"],) = self.drops
        else:
            rates = ", ".join(map(str, sorted(self.drops)))
            notes.append(f"its dense layers have different dropout rates ({rates}); here all are 0")
        if self.left_out:
            notes.append(
                "layers that matter only in training were ignored: "
                f"{', '.join(map(str, self.left_out[:3]))}{', ...' * (len(self.left_out) > 3)}"
            )
        if self.map.is_same_here:
            side = self.declared.image_size
            notes.append(
                f"it uses SAME padding: the outputs agree for {side}x{side} images, the declared "
                "size, but not for other sizes"
            )
