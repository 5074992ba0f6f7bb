"""Base classes for model.py, so that Keras can save and load layers built from a spec."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from tensorflow import keras

from .. import tabular
from .._files import replacing
from .._spec_dict import KINDS, from_dict, kinds_in, to_dict


class Block(keras.layers.Layer):
    """A layer built from a part of the spec, and saved with that part in its config.

    Its dtype policy also applies to the layers inside, which would otherwise use the global one.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        keras.utils.register_keras_serializable("densenet_multi")(cls)
        if "__init__" in cls.__dict__:
            cls.__init__ = _in_its_dtype(cls.__init__)  # type: ignore[method-assign]

    def build(self, input_shape: Any) -> None:
        """Do nothing: the layers inside were built when they were created."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spec": to_dict(self.spec)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        policy, kinds = keras.dtype_policies.get(config["dtype"]), KINDS | kinds_in(tabular)
        return cls(**{**config, "spec": from_dict(config["spec"], kinds), "dtype": policy})


def _in_its_dtype(make: Any) -> Any:
    @wraps(make)
    def init(self: Any, spec: Any, **kwargs: Any) -> None:
        with dtype_policy(kwargs.get("dtype") or keras.config.dtype_policy()):
            make(self, spec, **kwargs)

    return init


class Network(Block, keras.Model):
    """The complete network: a keras.Model that is saved like a ``Block``."""

    def build(self, input_shape: Any) -> None:
        # a symbolic call sets the shape of every layer inside, for summary() and save()
        self.compute_output_spec(keras.KerasTensor(input_shape, self.compute_dtype))

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save as Keras does, but write the registered class name into a legacy .h5 file.

        Keras would write the bare name, by which load_model cannot find the class.
        """
        super().save(filepath, *args, **kwargs)
        if str(filepath).endswith((".h5", ".hdf5")):
            _rename_in_legacy(Path(filepath), keras.utils.get_registered_name(type(self)))


def _rename_in_legacy(path: Path, name: str) -> None:
    """Replace the file with a copy that has the new name; after an edit it would have both."""
    import h5py

    with replacing(path) as new, h5py.File(path) as old, h5py.File(new, "w") as file:
        for group in old:
            old.copy(group, file)
        config = {**json.loads(old.attrs["model_config"]), "class_name": name}
        for attribute, value in old.attrs.items():
            is_config = attribute == "model_config"
            file.attrs[attribute] = json.dumps(config).encode() if is_config else value


@contextmanager
def dtype_policy(policy: Any) -> Iterator[None]:
    """Give the layers created inside the ``with`` block this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
