"""Ask a port: find out how it wants its images, and record every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from traceback import extract_tb
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import ConfigError, shown
from .._inputs import ImageError
from ..manifest import min_image_size, shape_trace
from ..spec import DenseNetSpec
from .network import OUTPUT, Array

LAYOUTS = ("NCHW", "NHWC")


class Port:
    """A callable of somebody else's: NumPy images in, NumPy logits out.

    It may also return a dictionary of stage maps, with the logits as ``"output"``.

    Attributes:
        layout: how it reads images, found out by the first call that it accepts.
        calls: what it was asked, in words.
    """

    def __init__(
        self, spec: DenseNetSpec, model: Callable[..., Any], dtype: str, who: str = "model"
    ) -> None:
        self.spec, self.model, self.dtype, self.who = spec, model, dtype, who
        self.layout = ""
        self.calls: list[str] = []

    def __call__(self, x: Array) -> dict[str, Array]:
        """Return stage maps, if the port has any, and ``"output"``, in NCHW.

        Raises ``ImageError`` if the port accepts the images in no layout, or returns something that
        is not the outputs of this network.
        """
        returned = self.ask(x)
        return arranged(self.spec, returned, self.layout, len(x))

    def ask(self, x: Array, *more: Any) -> Any:
        """Return what the port returns for images (N, C, H, W), and arguments that follow them.

        Raises ``ImageError`` if it accepts the images in no layout.
        """
        failures: list[BaseException] = []
        for layout in [self.layout] if self.layout else LAYOUTS:
            images = x.astype(self.dtype)
            if layout == "NHWC":
                images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
            try:
                returned = self.model(images, *more)
            except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's code
                failures.append(error)
                continue
            self.layout = layout
            n, _, height, width = x.shape
            self.calls.append(f"{n} images of {height}x{width}, {layout}, {self.dtype}")
            return returned
        layouts = [self.layout] if self.layout else LAYOUTS
        reasons = [_described(error) for error in failures]
        if len(set(reasons)) > 1:
            reasons = [f"{name}: {reason}" for name, reason in zip(layouts, reasons, strict=True)]
        raise ImageError(
            f"{self.who}: expected a function of NumPy images {x.shape} ({self.dtype})"
            f"{' and labels' if more else ''}, which are NCHW or NHWC; found that it raised "
            f"{'; '.join(dict.fromkeys(reasons))}"
        )


def _described(error: BaseException) -> str:
    """Return an error's type, the first line of its text, and the line of code that raised it."""
    line = next(iter(str(error).strip().splitlines()), "")
    frames = [each for each in extract_tb(error.__traceback__) if each.filename != __file__]
    where = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    if own := [each for each in frames if "site-packages" not in each.filename]:
        where = f" (line {own[-1].lineno} of {own[-1].filename})"
    return f"{type(error).__name__}: {line}{where}"


def arranged(
    spec: DenseNetSpec, returned: Any, layout: str, n: int, who: str = "model"
) -> dict[str, Array]:
    """Return what a port returned as arrays in NCHW, with the logits as ``"output"``.

    Raises ``ImageError``, which begins with ``who``.
    """
    given = returned if isinstance(returned, Mapping) else {OUTPUT: returned}
    found = {str(name): to_array(str(name), value, who) for name, value in given.items()}
    if OUTPUT not in found and "logits" in found:
        found[OUTPUT] = found.pop("logits")
    stages = dict(shape_trace(spec, *2 * [min_image_size(spec)]))
    if unknown := sorted(found.keys() - {*stages, OUTPUT}):
        raise ImageError(
            f"{who}: expected maps of {', '.join(stages)} or logits as {OUTPUT}, found "
            f"{shown(unknown[0])}"
        )
    if OUTPUT not in found:
        raise ImageError(
            f"{who}: expected the logits as {OUTPUT}, beside the maps of stages, found only "
            f"{', '.join(found) or 'an empty dictionary'}"
        )
    classes = spec.config.num_classes
    for name, array in found.items():
        if name == OUTPUT:
            expected = (n, classes) if classes else (n, array.shape[-1])
            is_map = array.ndim == 4  # of one pixel: (N, C, 1, 1), (N, 1, 1, C)
            found[name] = array.reshape(n, -1) if is_map and len(array) == n else array
            if found[name].shape != expected:
                raise ImageError(
                    f"{who}: expected logits of shape {expected}, found {array.shape}; the weights "
                    "have another number of classes, or the model returns something else"
                )
        elif array.ndim == 4:
            channels = stages[name][0]
            sides = [side for side in (1, 3) if array.shape[side] == channels]
            if sides == [3] or (len(sides) == 2 and layout == "NHWC"):
                found[name] = array.transpose(0, 3, 1, 2)
            elif not sides:
                raise ImageError(
                    f"{who}: expected maps of {channels} channels for {name}, found the shape "
                    f"{array.shape}"
                )
        else:
            raise ImageError(f"{who}: expected maps (N, C, H, W) for {name}, found {array.shape}")
    return found


def to_array(name: str, value: Any, who: str = "model") -> Array:
    """Return a tensor of any framework as a float64 array. Raises ``ImageError``."""
    try:
        array: npt.NDArray[Any] = np.asarray(_out_of_the_framework(value))
        numbers = array.astype(np.float64) if array.dtype != object and array.ndim else None
    except (TypeError, ValueError):
        numbers = None
    if numbers is None:
        raise ImageError(
            f"{who}: expected NumPy arrays, found {type(value).__name__} for {shown(name)}; return "
            "the logits, or a dictionary of stage maps and output"
        )
    return numbers


def to_number(name: str, value: Any, who: str = "model") -> float:
    """Return a number, or a tensor of any framework with one. Raises ``ImageError``."""
    return float(to_array(name, np.reshape(_out_of_the_framework(value), -1), who)[0])


def _out_of_the_framework(value: Any) -> Any:
    if hasattr(value, "asnumpy"):  # MXNet
        return value.asnumpy()
    if hasattr(value, "detach"):  # PyTorch
        value = value.detach().cpu()
        return value.float() if "float16" in str(value.dtype) else value  # NumPy has no bfloat16
    return value


@contextmanager
def _naming(module: str) -> Iterator[None]:
    """Turn whatever a module raises when it is imported into a ``ConfigError``."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != module.split(".", maxsplit=1)[0]:
            what = f"no module {error.name!r}, which it imports"
        else:
            what = "none of this name here; for a file, type its name: port.py:model"
        raise ConfigError(f"model: expected a module {module!r}, found {what}") from error
    except SyntaxError as error:
        where = f"line {error.lineno} of {error.filename}"
        raise ConfigError(f"model: expected Python, found {error.msg!r} in {where}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"model: expected a module that can be imported, found {_described(error)}"
        ) from error


def loaded(text: str) -> Callable[[Any], Any]:
    """Return the callable that ``"module:name"`` or ``"file.py:name"`` names.

    Raises ``ConfigError``, also if the module cannot be executed.
    """
    import sys
    from importlib import import_module
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    module_name, _, name = text.rpartition(":")
    if not module_name or not name:
        raise ConfigError(
            f"model: expected MODULE:CALLABLE, such as port.py:model, found {shown(text)}"
        )
    if module_name.endswith(".py"):
        path = Path(module_name)
        found = spec_from_file_location(path.stem, path) if path.is_file() else None
        if found is None or found.loader is None:
            raise ConfigError(f"model: expected a Python file, found none at {shown(module_name)}")
        module = module_from_spec(found)
        is_new = sys.modules.setdefault(path.stem, module) is module
        sys.path[:0] = [str(path.resolve().parent)]  # it may import its neighbors
        try:
            with _naming(module_name):
                found.loader.exec_module(module)
        except ConfigError:
            if is_new:
                del sys.modules[path.stem]
            raise
    else:
        sys.path[:0] = [str(Path.cwd())]
        try:
            with _naming(module_name):
                module = import_module(module_name)
        finally:
            sys.path.remove(str(Path.cwd()))
    model = getattr(module, name, None)
    if not callable(model):
        found_there = shown(model) if hasattr(module, name) else "none of this name"
        raise ConfigError(
            f"model: expected a function {name!r} in {module_name}, found {found_there}"
        )
    return model  # type: ignore[no-any-return]
