"""Every backend offers exactly the contract, and ``help()`` shows the contract's docstrings."""

import inspect

import pytest

import densenet_multi as dm
from densenet_multi import spec as spec_module
from densenet_multi.backends import CLASSES, OWN_DOCSTRINGS, Backend

FUNCTIONS = [name for name, value in vars(Backend).items() if inspect.isfunction(value)]
FUNCTIONS = [name for name in FUNCTIONS if not name.startswith("_")]


@pytest.fixture
def module(backend):
    return dm.load_backend(backend.NAME)  # with --device gpu, the fixture is not a module


def test_dir_lists_only_the_public_names(module):
    expected = {*FUNCTIONS, *CLASSES, "NAME", "FRAMEWORK", "RUNNING_VARIANCE"}
    assert set(dir(module)) == set(module.__all__) == expected
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_contracts_docstring_and_parameters(module, name):
    function, promised = getattr(module, name), getattr(Backend, name)
    assert function.__doc__ == inspect.cleandoc(promised.__doc__)
    _, *parameters = inspect.signature(promised).parameters.values()  # without self
    found = inspect.signature(function).parameters.values()
    plain = [[(p.name, p.kind, p.default) for p in ps] for ps in (found, parameters)]
    assert plain[0] == plain[1]


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_its_specs_docstring(module, name):
    text = getattr(module, name).__doc__
    own = OWN_DOCSTRINGS.get(name)  # Features and DenseNet are built from the same spec
    assert text.startswith(own or inspect.cleandoc(getattr(spec_module, CLASSES[name]).__doc__))
    assert f"Built from a ``{CLASSES[name]}``, in {module.FRAMEWORK}'s own layers." in text


def test_the_maps_of_the_stages_are_explained(module):
    assert module.Features.stages.__doc__ == "The map after each stage, {stage: map}."


def test_fit_refuses_an_argument_that_does_not_exist(module):
    with pytest.raises(TypeError, match="unexpected keyword argument 'epochs'"):
        module.fit(module.build(dm.get_spec("d2l", block_config=(1,))), (), dm.Recipe(), epochs=3)


def test_true_is_the_old_spelling_of_some(module):
    spec = dm.get_spec("d2l", block_config=(1, 1))
    models = [module.build(spec, memory_efficient=level) for level in (True, "some", "max", False)]
    kinds = [type(model.features.denseblock1) for model in models]
    assert kinds[0] is kinds[1]
    assert len({*kinds}) + (module.NAME == "torch") == 3  # PyTorch's levels differ in their layers
    with pytest.raises(dm.ConfigError, match="memory_efficient: expected False, 'some' or 'max'"):
        module.build(spec, memory_efficient="all")
