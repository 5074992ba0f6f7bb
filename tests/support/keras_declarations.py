"""Declarations of Keras models, built by hand in the form that Keras 3 and Keras 2 write."""

import itertools


class Model:
    """Declares a functional model, call by call, as Keras 3 or Keras 2 does."""

    def __init__(self, keras=3):
        self.keras, self.layers, self.count = keras, [], itertools.count()

    def __call__(self, kind, *reads, given=(), training=None, name=None, module=None, **config):
        """Call a new layer, and return its name."""
        name = name or f"{kind.lower()}_{next(self.count)}"
        called = {} if training is None else {"training": training}
        entry = {"class_name": kind, "config": {"name": name, **config}, "name": name}
        if self.keras == 3:
            entry["module"] = module or "keras.layers"
            tensors = [self.tensor(read) if isinstance(read, str) else read for read in reads]
            args = [tensors] if kind == "Concatenate" else tensors
            calls = [{"args": [*args, *given], "kwargs": called}]
        else:
            calls = [[[read, 0, 0, called] for read in reads]]
        entry["inbound_nodes"] = calls if reads else []
        self.layers.append(entry)
        return name

    @staticmethod
    def tensor(name):
        history = {"shape": [None], "dtype": "float32", "keras_history": [name, 0, 0]}
        return {"class_name": "__keras_tensor__", "config": history}

    def declared(self, *outputs, inputs=None):
        first = inputs or self.layers[0]["name"]
        config = {
            "name": "model",
            "layers": self.layers,
            "input_layers": [[first, 0, 0]],
            "output_layers": [[output, 0, 0] for output in outputs],
        }
        return {"class_name": "Functional" if self.keras == 3 else "Model", "config": config}


def norm_relu(m, x, o):
    axis = 3 if m.keras == 3 else [3]
    norm = m("BatchNormalization", x, axis=axis, epsilon=o["eps"], momentum=0.9, center=True,
             scale=True)  # fmt: skip
    return m(o["relu"], norm, **o["relu_config"])


def conv(m, x, kernel, filters=4, **config):
    usual = {"strides": [1, 1], "padding": "same", "activation": "linear", "groups": 1}
    given = {**usual, "data_format": "channels_last", "dilation_rate": [1, 1], **config}
    return m("Conv2D", x, filters=filters, kernel_size=[kernel, kernel], **given)


USUAL = {
    "eps": 1e-3,
    "relu": "ReLU",
    "relu_config": {"negative_slope": 0.0, "max_value": None, "threshold": 0.0},
    "size": 32,
    "stem": "zeros",
    "order": "old first",
    "pool": "AveragePooling2D",
    "pool_padding": "valid",
    "bottleneck": True,
    "drop": 0.0,
    "global": "GlobalAveragePooling2D",
    "head": "Dense",
    "activation": "linear",
    "joins": "two",
    "blocks": (2, 1),
}


def network(m, x=None, **changes):
    """Add a DenseNet to the model, and return the name of its last layer."""
    o = {**USUAL, **changes}
    size = o["size"]
    x = x or m("InputLayer", batch_shape=[None, size, size, 3])
    if o["stem"] == "cifar":
        x = conv(m, x, 3)
    elif o["stem"] == "same":
        x = norm_relu(m, conv(m, x, 7, strides=[2, 2]), o)
        x = m("MaxPooling2D", x, pool_size=[3, 3], strides=[2, 2], padding="same")
    else:
        x = m("ZeroPadding2D", x, padding=[[3, 3], [3, 3]])
        x = norm_relu(m, conv(m, x, 7, strides=[2, 2], padding="valid"), o)
        x = m("ZeroPadding2D", x, padding=[[1, 1], [1, 1]])
        x = m("MaxPooling2D", x, pool_size=[3, 3], strides=[2, 2], padding="valid")
    for block, layers in enumerate(o["blocks"]):
        maps = [x]
        for _ in range(layers):
            new = conv(m, norm_relu(m, x, o), 1) if o["bottleneck"] else x
            new = conv(m, norm_relu(m, new, o), 3)
            if o["drop"]:
                new = m("Dropout", new, rate=o["drop"])
            maps.append(new)
            joined = {"two": [x, new], "all": maps}[o["joins"]]
            x = m("Concatenate", *(joined if o["order"] == "old first" else joined[::-1]), axis=-1)
        if block < len(o["blocks"]) - 1:
            x = m(o["pool"], conv(m, norm_relu(m, x, o), 1), pool_size=[2, 2], strides=[2, 2],
                  padding=o["pool_padding"])  # fmt: skip
    x = norm_relu(m, x, o)
    if o["global"]:
        x = m(o["global"], x, **changes.get("global_config", {}))
    if o["head"]:
        x = m("Dense", x, activation=o["activation"])
    return x
