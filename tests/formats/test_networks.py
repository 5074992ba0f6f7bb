"""Finding the network among a file's tensors, by names and shapes, whatever is around it."""

import re

import pytest

import densenet_multi as dm
from cases import small
from densenet_multi.formats._networks import find_network

SPEC = small("bottleneck")
SHAPES = {name: info.shape for name, info in dm.tensors(SPEC).items()}
BODY = {name: shape for name, shape in SHAPES.items() if name.startswith("features.")}
CLASSES, WIDTH = SHAPES["classifier.weight"]


def named(pattern, replacement, shapes=SHAPES):
    return {re.sub(pattern, replacement, name): shape for name, shape in shapes.items()}


def behind(prefix, shapes=SHAPES):
    return named("^", prefix, shapes)


def linear(place, outputs=CLASSES, inputs=WIDTH):
    return {f"{place}.weight": (outputs, inputs), f"{place}.bias": (outputs,)}


def norm(place, width=WIDTH):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{place}.{leaf}": (width,) for leaf in leaves}


def in_sequence(name):
    """Return the name in ``Sequential(*features.children())``, which numbers the children."""
    order = "conv0 norm0 relu0 pool0 denseblock1 transition1 denseblock2 transition2 denseblock3"
    order += " norm5"
    return re.sub(r"^features\.(\w+)", lambda m: f"features.{order.split().index(m[1])}", name)


def check(file, expected, *notes, prefix=None):
    """Check that exactly the expected tensors are found, and that each note is given."""
    found = find_network(file, prefix)
    assert {canonical: file[name] for name, canonical in found.names.items()} == expected
    for note in notes:
        assert any(note in given for given in found.notes), found.notes
    assert bool(found.notes) == bool(notes)
    return found


# --- Around the network -------------------------------------------------------------------------


def test_torchvisions_names_are_found_without_a_note():
    assert check(SHAPES, SHAPES).names == {name: name for name in SHAPES}


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.net.", "state_dict.module.densenet121.", "encoder_q.", "0.", "a.b.c.d.e."],
)
def test_any_prefix_is_taken_off(prefix):
    check(behind(prefix), SHAPES, f"the prefix {prefix!r} was removed from every name")


@pytest.mark.parametrize("word", ["_orig_mod.", "_fsdp_wrapped_module."])
@pytest.mark.parametrize("where", ["^", r"denseblock1\."])
def test_the_wrappers_of_pytorch_are_taken_off_wherever_they_are(word, where):
    file = named(f"({where})", rf"\1{word}")
    check(file, SHAPES, f"PyTorch's wrapper {word!r} was removed from the names")


@pytest.mark.parametrize("word", ["backbone.", "encoder.body.", "features.module.", "0.0."])
def test_another_word_for_features_is_read_and_told(word):
    body = named(r"^features\.", word, BODY)
    check(body, BODY, f"names of its body start with {word!r}")


def test_a_body_alone_is_read():
    check(named(r"^features\.", "", BODY), BODY, "the names of its body have no prefix")


def test_a_body_whose_children_are_only_numbered_is_read_in_their_order():
    file = {in_sequence(name): shape for name, shape in SHAPES.items()}
    assert "features.4.denselayer1.conv1.weight" in file
    check(
        file, SHAPES, "its layers have numbers instead of names, and were read in numerical order"
    )


def test_names_of_before_2018_and_monais_are_read():
    old = named(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2")
    check(old, SHAPES, "40 names from before 2018 (norm.1) became today's (norm1)")
    monai = named(r"(denselayer\d+\.)", r"\1layers.", named("^classifier", "class_layers.out"))
    check(monai, SHAPES, "its classifier is named 'class_layers.out'")


@pytest.mark.parametrize("last", ["features.norm_final", "features.bn", "features.9"])
def test_the_last_norm_may_have_any_name(last):
    check(named(r"^features\.norm5", last), SHAPES)


def test_a_last_norm_outside_the_body_is_told():
    check(named(r"^features\.norm5", "bn"), SHAPES, "'bn' is assumed to be its last BatchNorm")


@pytest.mark.parametrize(("dimensions", "kind"), [((3,) * 5, "3D"), ((3,) * 3, "1D")])
def test_a_network_over_volumes_or_series_is_refused_as_that(dimensions, kind):
    file = {n: dimensions if len(s) == 4 else s for n, s in SHAPES.items()}
    with pytest.raises(
        dm.WeightsError, match=f"expected a 2D convolution.*that of a {kind} network"
    ):
        find_network(file)


def test_a_layer_that_is_missing_is_no_reason_to_refuse_another():
    file = {n: s for n, s in SHAPES.items() if "denseblock3.denselayer1.conv2" not in n}
    assert set(find_network(file).names) == set(file)


# --- Several networks ---------------------------------------------------------------------------

MOCO = {**behind("encoder_q."), **behind("encoder_k."), "queue": (128, 100)}


def test_several_networks_are_listed_with_what_chooses_one():
    listed = r"found 2; choose one with\n  prefix='encoder_q\.'\n  prefix='encoder_k\.'$"
    with pytest.raises(dm.WeightsError, match=listed):
        find_network(MOCO)


@pytest.mark.parametrize("prefix", ["encoder_k.", "encoder_k", "encoder_k.features."])
def test_a_prefix_chooses_a_network(prefix):
    found = check(MOCO, SHAPES, "the prefix 'encoder_k.'", "part of the network: queue",
                  prefix=prefix)  # fmt: skip
    assert all(name.startswith("encoder_k.") for name in found.names)


def test_a_prefix_of_no_network_is_refused_with_those_that_are():
    with pytest.raises(
        dm.ConfigError, match=r"'encoder_q\.' or 'encoder_k\.', found prefix='student'"
    ):
        find_network(MOCO, "student")


@pytest.mark.parametrize(
    ("average", "own"),
    [
        ("state_dict_ema.", "state_dict."),
        ("model_ema.", "model."),
        ("state_dict.ema_model.module.", "state_dict.model."),
        ("swa.", ""),
    ],
)
def test_of_weights_and_their_average_the_weights_are_read(average, own):
    file = {**behind(average), **behind(own)}
    word = next(w for w in average.split(".") if "ema" in w or "swa" in w)
    found = check(file, SHAPES, f"the entry {word!r}, an average of these weights, was ignored",
                  *[f"the prefix {own!r}"][: bool(own)])  # fmt: skip
    assert set(found.names) == set(behind(own))


def test_an_average_alone_is_read():
    check(behind("state_dict_ema."), SHAPES, "the prefix 'state_dict_ema.'")


# --- Heads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["fc", "head.1", "classifier.0", "classifier.2", "linear", "class_layers.out"]
)
@pytest.mark.parametrize("prefix", ["", "module.net."])
def test_the_only_linear_layer_that_fits_is_the_classifier(name, prefix):
    notes = [f"its classifier is named {prefix + name!r}", *[f"{prefix!r} was"] * bool(prefix)]
    check(behind(prefix, named("^classifier", name)), SHAPES, *notes)


def test_a_classifier_beside_the_wrapped_body_is_found():
    file = {**behind("backbone.", BODY), **linear("fc")}
    check(file, SHAPES, "the prefix 'backbone.'", "its classifier is named 'fc'")


def test_a_classifier_may_have_no_bias():
    file = {n: s for n, s in SHAPES.items() if n != "classifier.bias"}
    check(file, file)


HEADS = {
    "two layers": {**linear("classifier.0", 64), **linear("classifier.3", 2, 64)},
    "two layers of one width": {**linear("head.0", WIDTH), **linear("head.2", 2)},
    "five heads": {n: s for i in range(5) for n, s in linear(f"heads.{i}", 3).items()},
    "a LayerNorm": {"head.0.weight": (WIDTH,), "head.0.bias": (WIDTH,), **linear("head.1")},
    "a LayerNorm by its name": {"ln.weight": (WIDTH,), "ln.bias": (WIDTH,), **linear("fc")},
    "a BatchNorm": {**norm("head.0"), **linear("head.1")},
    "a learned activation": {**linear("classifier.0"), "classifier.1.weight": (1,)},
    "another width": linear("fc", inputs=2 * WIDTH),
    "a convolution": {"classifier.weight": (CLASSES, WIDTH, 1, 1), "classifier.bias": (CLASSES,)},
    "a margin loss": {"arc_margin.weight": (CLASSES, WIDTH)},
    "a normalized weight": {"fc.weight_g": (CLASSES, 1), "fc.weight_v": (CLASSES, WIDTH)},
    "a decoder": {"decoder.0.weight": (8, WIDTH, 3, 3)},
    "generalized-mean pooling": {"pool.p": (1,), **linear("fc")},
    "a recurrent layer": {"lstm.weight_ih_l0": (4 * WIDTH, WIDTH), **linear("fc")},
    "attention": {"attn.in_proj_weight": (3 * WIDTH, WIDTH), **linear("fc")},
    "cosines": {"fc.weight": (CLASSES, WIDTH), "fc.sigma": (1,)},
}


@pytest.mark.parametrize("prefix", ["", "module.encoder."])
@pytest.mark.parametrize("head", HEADS)
def test_another_head_gives_the_body_and_is_told(head, prefix):
    notes = ["only its body was read, which computes features; for a new classifier: convert("]
    notes += [f"the prefix {prefix!r}"] * bool(prefix)
    notes += ["ignored, because they are not part of the network"] * (
        head == "a learned activation"
    )
    found = check({**behind(prefix, BODY), **behind(prefix, HEADS[head])}, BODY, *notes)
    assert next(iter(HEADS[head])).rpartition(".")[0] in " ".join(found.notes)


@pytest.mark.parametrize(
    "own", [linear("fc", 2, CLASSES), linear("fc", 2)], ids=["of its outputs", "instead of it"]
)
def test_a_classifier_that_another_follows_or_replaces_is_not_the_networks(own):
    file = {**behind("densenet."), **own}
    found = check(file, BODY, "the prefix 'densenet.'", "several heads or a head of several layers")
    assert "densenet.classifier (4, 13), fc" in " ".join(found.notes)


# --- Beside the network and inside it -----------------------------------------------------------

BESIDE = {
    "op_threshs": (CLASSES,), "criterion.weight": (CLASSES,), "criterion.pos_weight": (CLASSES,),
    "best_loss": (), "optimizer.state.0.exp_avg": (8, 3, 7, 7),
}  # fmt: skip


def test_tensors_beside_the_network_are_listed_and_left_out():
    listed = ", ".join(BESIDE)
    note = f"ignored, because they are not part of the network: {listed}"
    check({**BESIDE, **SHAPES}, SHAPES, note)
    many = {f"loss.{i}": () for i in range(9)}
    check(
        {**SHAPES, **many},
        SHAPES,
        "network: loss.0, loss.1, loss.2, loss.3, loss.4, loss.5, 3 more",
    )


def test_layers_beside_the_network_are_told_with_what_their_loss_may_mean():
    note = "ignored, because a DenseNet has no such layers (outputs that depend on them will"
    check({**behind("cnn.")} | linear("aux", 9, 77), SHAPES, "the prefix 'cnn.'", note)


@pytest.mark.parametrize("layer", [{"conv.weight": (3, 1, 1, 1)}, norm("bn_in", 3)])
def test_a_layer_that_may_come_before_the_network_is_refused(layer):
    file = {**behind("net."), **layer}
    place = next(iter(layer)).rpartition(".")[0]
    with pytest.raises(dm.WeightsError, match=rf"^{place}: expected .* pass prefix='net\.'$"):
        find_network(file)
    check(file, SHAPES, "ignored, because a DenseNet has no such", prefix="net.")


def test_a_layer_inside_something_else_is_none_before_the_network():
    file = {**behind("net."), "decoder.0.weight": (3, 12, 3, 3)}
    check(file, SHAPES, "the prefix 'net.'", "ignored, because a DenseNet has no such")


def test_a_classifier_that_was_also_saved_alone_is_the_same():
    file = {**behind("state_dict.", named("^classifier", "classifier.1")), **linear("classifier.1")}
    check(
        file,
        SHAPES,
        "the prefix 'state_dict.'",
        "its classifier is named 'state_dict.classifier.1'",
        "'classifier.1', a copy outside the network, was ignored",
    )


@pytest.mark.parametrize("counter", ["num_batches_tracked", "total_ops", "total_params"])
def test_counters_are_none_of_the_networks_tensors(counter):
    counted = {f"{place}.{counter}" for place in ("features", "features.norm0", "classifier")}
    check({**SHAPES, **dict.fromkeys(counted, (1,))}, SHAPES)


def test_timms_names_of_a_body_alone_are_known():
    check(named(r"^features\.", "features_", BODY), BODY)


INSIDE = {
    "a blur": {"features.pool0.1.filt": (8, 1, 3, 3)},
    "a learned activation": {"features.relu0.weight": (1,)},
    "squeeze and excitation in a dense layer": linear(
        "features.denseblock1.denselayer1.se.fc", 2, 4
    ),
    "attention after a block's layers": {"features.denseblock2.cbam.conv.weight": (1, 2, 7, 7)},
    "attention between stages": linear("features.se1.fc.0", 2, 8),
    "a third convolution": {"features.denseblock1.denselayer1.conv3.weight": (4, 4, 3, 3)},
    "a stem of several convolutions": {"features.conv1.weight": (8, 8, 3, 3)},
    "another norm": norm("features.norm1", 8),
    "a layer in a transition": {"features.transition1.blur.weight": (9, 1, 3, 3)},
    "a normalized weight": {"features.denseblock1.denselayer1.conv2.weight_g": (4, 1, 1, 1)},
}


@pytest.mark.parametrize("where", INSIDE)
def test_layers_inside_that_no_densenet_has_are_refused_by_name(where):
    file = {**SHAPES, **INSIDE[where]}
    first = re.escape(next(iter(INSIDE[where])))
    with pytest.raises(dm.WeightsError, match=f"{first}: expected only a DenseNet's layers"):
        find_network(file)


@pytest.mark.parametrize("body", ["backbone.", ""])
def test_attention_inside_is_refused_whatever_the_body_is_called(body):
    file = {**named(r"^features\.", body, BODY), f"{body}se1.fc.weight": (2, 8)}
    with pytest.raises(
        dm.WeightsError, match=r"se1\.fc\.weight: expected only a DenseNet's layers"
    ):
        find_network(file)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], "no tensors; save the weights themselves"),
        (["a.weight"], "1 others: a.weight"),
        ([""], "one tensor, without a name"),
        (["module.layer1.0.conv1.weight", "fc.weight"], "2 of a ResNet: module.layer1.0"),
        (["features.0.weight", "classifier.6.weight"], "2 of a VGG or an AlexNet: features.0"),
        (["features.1.conv.0.0.weight"], "1 of a MobileNet or an EfficientNet: "),
        (["features.1.0.block.0.0.weight"], "1 of a MobileNet or an EfficientNet: "),
        (["blocks.0.attn.qkv.weight"], "1 of a transformer: blocks.0.attn"),
        (["dense1.0.attn.qkv.weight"], "1 others: dense1.0.attn"),  # perhaps a modified DenseNet
    ],
)
def test_other_tensors_are_refused_with_what_was_found(names, found):
    with pytest.raises(dm.WeightsError, match=f"expected a DenseNet's tensors.*; found {found}"):
        find_network(dict.fromkeys(names, (3, 3, 3, 3)))


def test_a_tensor_that_is_there_twice_is_refused():
    twice = "features.denseblock1.denselayer1.norm.1.weight"
    with pytest.raises(dm.WeightsError, match=r"norm\.1\.weight: found twice, as features"):
        find_network({**SHAPES, twice: (8,)})
    with pytest.raises(dm.WeightsError, match=r"_orig_mod\.classifier\.bias: found twice"):
        find_network({**SHAPES, "_orig_mod.classifier.bias": (CLASSES,)})


@pytest.mark.parametrize("place", ["classifier", "head.fc"])
def test_a_bias_of_another_layer_is_refused_by_both_shapes(place):
    file = BODY | linear(place) | {f"{place}.bias": (CLASSES + 3,)}
    with pytest.raises(dm.WeightsError, match=rf"{place}\.bias: expected shape \({CLASSES},\)"):
        find_network(file)
