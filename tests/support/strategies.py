"""Hypothesis strategies: configurations of any size, and networks small enough to run."""

from hypothesis import strategies as st

import densenet_multi as dm
from densenet_multi.tabular import TabularConfig

fractions = st.floats(0, 1, exclude_max=True)
decimals = st.integers(1, 100).map(lambda hundredths: hundredths / 100)


def configs() -> st.SearchStrategy[dm.DenseNetConfig]:
    """Any valid configuration whose every transition keeps at least one channel."""
    return st.builds(
        dm.DenseNetConfig,
        growth_rate=st.integers(1, 64),
        block_config=st.lists(st.integers(1, 24), min_size=1, max_size=5).map(tuple),
        num_init_features=st.integers(1, 128),
        bn_size=st.none() | st.integers(1, 8),
        compression=decimals,
        drop_rate=fractions,
        num_classes=st.integers(0, 1000),
        in_channels=st.integers(1, 4),
        stem=st.sampled_from(["imagenet", "cifar"]),
        conv_bias=st.booleans(),
        bn_eps=st.floats(1e-12, 1e-1),
        bn_decay=fractions,
        transition_pool=st.sampled_from(["avg", "max"]),
        global_pool=st.sampled_from(["avg", "max"]),
    ).filter(_keeps_channels)


def small_configs(least_classes: int = 1) -> st.SearchStrategy[dm.DenseNetConfig]:
    """Networks of every kind with a few thousand parameters, without dropout: quick to run."""
    return st.builds(
        dm.DenseNetConfig,
        growth_rate=st.integers(1, 5),
        block_config=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
        num_init_features=st.integers(1, 8),
        bn_size=st.none() | st.integers(1, 3),
        compression=decimals,
        num_classes=st.integers(least_classes, 5),
        in_channels=st.integers(1, 3),
        stem=st.sampled_from(["imagenet", "cifar"]),
        conv_bias=st.booleans(),
        bn_eps=st.sampled_from([1e-5, 1.001e-5, 1e-3]),
        bn_decay=st.sampled_from([0.5, 0.875, 0.96875]),  # exact in float32, as Gluon stores it
        transition_pool=st.sampled_from(["avg", "max"]),
        global_pool=st.sampled_from(["avg", "max"]),
    ).filter(_keeps_channels)


def _keeps_channels(config: dm.DenseNetConfig | TabularConfig) -> bool:
    try:
        config.resolve()
    except dm.ConfigError:
        return False
    return True


def tabular_configs() -> st.SearchStrategy[TabularConfig]:
    """Networks for tables of every kind, without dropout, whose transitions keep a feature."""
    return st.builds(
        TabularConfig,
        st.integers(1, 9),
        growth_rate=st.integers(1, 6),
        block_config=st.lists(st.integers(1, 3), max_size=3).map(tuple),
        num_init_features=st.integers(1, 9),
        compression=decimals,
        normalization=st.sampled_from(["batch", "none"]),
        activation=st.sampled_from(["relu", "silu", "tanh"]),
        concatenate=st.booleans(),
        bn_eps=st.sampled_from([1e-5, 1.001e-5, 1e-3]),
        bn_decay=st.sampled_from([0.5, 0.875, 0.96875]),
    ).filter(_keeps_channels)
