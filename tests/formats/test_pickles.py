"""Pickles are read as data: nothing that they name is imported, called or trusted."""

import argparse
import copyreg
import datetime as dt
import io
import os
import pathlib
import pickle
import struct
import sys
from collections import Counter, OrderedDict, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet_multi._pickles import (
    BFLOAT16,
    MOST_STEPS,
    PickleError,
    Reader,
    StandIn,
    as_array,
    contents,
)

START = b"\x80\x04"


def read(content, **given):
    return Reader(io.BytesIO(content), **given).load()


def text(value):
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


def named(module, name):
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def called(function, *args):
    return function + pickle.MARK + b"".join(args) + pickle.TUPLE + pickle.REDUCE


# --- What is read -------------------------------------------------------------------------------

SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


def data(*more):
    return st.recursive(
        st.one_of(SIMPLE, st.binary(), *more),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text() | st.integers(), inner)
            | st.tuples(inner, inner)
        ),
        max_leaves=10,
    )


@given(data(), st.sampled_from([2, 3]))
@settings(max_examples=50)
def test_data_are_read_as_pickle_reads_them(given_data, protocol):
    assert read(pickle.dumps(given_data, protocol)) == given_data


NEWER = (st.sets(st.integers()), st.frozensets(st.text()), st.binary().map(bytearray))


@given(data(*NEWER), st.just(5))
@settings(max_examples=50)
def test_data_of_newer_pickles_are_read_as_pickle_reads_them(given_data, protocol):
    assert read(pickle.dumps(given_data, protocol)) == given_data


class WithNamedArguments:
    def __new__(cls, *, size):  # noqa: ARG004  # as pickle calls it
        return object.__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"size": 3}


PATH = pathlib.PurePosixPath("/a/b")
HARMLESS = {
    "argparse.Namespace": argparse.Namespace(lr=0.1),
    f"{type(PATH).__module__}.PurePosixPath": PATH,  # pathlib._local in Python 3.13
    "datetime.datetime": dt.datetime(2020, 1, 2),  # noqa: DTZ001
    "fractions.Fraction": Fraction(1, 3),
    f"{__name__}.WithNamedArguments": WithNamedArguments(size=3),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", HARMLESS)
def test_an_object_becomes_a_stand_in_that_remembers_what_it_was_given(name, protocol):
    found = read(pickle.dumps({"kept": HARMLESS[name], "beside": 1}, protocol))
    assert found["beside"] == 1
    assert isinstance(found["kept"], StandIn)
    # before protocol 4, named arguments are pickled as a partial of the class
    if protocol > 2 or name != f"{__name__}.WithNamedArguments":
        assert found["kept"].name == name
    if name == "argparse.Namespace":
        assert found["kept"].attributes == {"lr": 0.1}


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_standard_librarys_dictionaries_are_dictionaries(protocol):
    ordered = OrderedDict([("b", 1), ("a", 2)])
    ordered._metadata = {"version": 2}  # as PyTorch does
    grouped = defaultdict(list, {"x": [1]})
    found = read(pickle.dumps([ordered, grouped, Counter("aab")], protocol))
    assert found == [{"b": 1, "a": 2}, {"x": [1]}, {"a": 2, "b": 1}]
    assert list(found[0]) == ["b", "a"]


def test_a_dictionary_of_python_2_is_made_of_a_list_of_pairs():
    pairs = pickle.EMPTY_LIST + pickle.MARK + b"U\x01aK\x01" + pickle.TUPLE + pickle.APPEND
    assert read(b"\x80\x02" + called(named("collections", "OrderedDict"), pairs) + b".") == {"a": 1}


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(3, np.float16),
    np.arange(3, dtype=">f8"),
    np.zeros((0, 4), np.int64),
    np.array([True, False]),
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_an_array_of_numbers_is_read_bit_for_bit(array, protocol):
    found = as_array(read(pickle.dumps(array, protocol)))
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def test_an_array_of_python_2_is_read_from_its_text():
    raw = np.arange(200, dtype="<f8").tobytes()
    string = pickle.BINSTRING + struct.pack("<i", len(raw)) + raw
    shape = b"K\xc8" + pickle.TUPLE1
    dtype = called(named("numpy", "dtype"), text("f8"))
    made = called(named("numpy.core.multiarray", "_reconstruct"))
    state = pickle.MARK + b"K\x01" + shape + dtype + pickle.NEWFALSE + string + pickle.TUPLE
    found = as_array(read(b"\x80\x02" + made + state + pickle.BUILD + b"."))
    np.testing.assert_array_equal(found, np.arange(200.0))


@pytest.mark.parametrize(
    "array",
    [np.array(["a", "b"]), np.array([{}, None], object), np.array(["2020"], "M8[D]")],
    ids=str,
)
def test_an_array_of_anything_else_is_left_alone(array):
    assert as_array(read(pickle.dumps(array))) is None


@pytest.mark.parametrize("name", ["ml_dtypes.bfloat16", "tensorflow.python._bfloat16.bfloat16"])
def test_numbers_of_bfloat16_are_left_as_bits_whatever_module_names_them(name):
    bits = np.array([[0x3F80, 0xC000, 0x7F80], [0, 0x8000, 1]], "<u2")  # 1, -2, infinity, ...
    dtype = called(named("numpy", "dtype"), named(*name.rsplit(".", 1)))
    made = called(named("numpy.core.multiarray", "_reconstruct"))
    shape = b"K\x02K\x03" + pickle.TUPLE2
    raw = pickle.SHORT_BINBYTES + bytes([bits.nbytes]) + bits.tobytes()
    state = pickle.MARK + b"K\x01" + shape + dtype + pickle.NEWFALSE + raw + pickle.TUPLE
    found = as_array(read(b"\x80\x03" + made + state + pickle.BUILD + b"."))
    assert found.dtype == BFLOAT16
    np.testing.assert_array_equal(found["bfloat16"], bits)


def test_contents_have_paths_through_keys_positions_and_attributes():
    shared = [1.5]
    root = {"a": [shared, {3: shared}], "n": argparse.Namespace(inner={"x": ()})}
    found = dict(contents(read(pickle.dumps(root))))
    assert set(found) == {
        (), ("a",), ("a", "0"), ("a", "1"), ("a", "1", "3"), ("n",), ("n", "inner"),
        ("n", "inner", "x"),
    }  # fmt: skip
    assert found["a", "0"] is found["a", "1", "3"]


def test_what_contains_itself_has_an_end():
    content = pickle.EMPTY_LIST + pickle.MEMOIZE + pickle.BINGET + b"\0" + pickle.APPEND + b"."
    assert len(list(contents(read(START + content)))) == 2


# --- What is never done -------------------------------------------------------------------------


def attacks(trap):
    """Return {how: a pickle that makes a folder if it is trusted}."""
    mkdir, path = named("os", "mkdir"), text(trap)
    by_name = text("os") + text("mkdir") + pickle.STACK_GLOBAL
    dotted = text("os") + text("path.os.mkdir") + pickle.STACK_GLOBAL
    through = called(
        named("builtins", "getattr"), named("builtins", "__import__"), text("__call__")
    )
    state = pickle.EMPTY_DICT + text("__setstate__") + mkdir + pickle.SETITEM
    known = pickle.EMPTY_DICT + text("function") + mkdir + pickle.SETITEM + pickle.BUILD
    return {
        "called": called(mkdir, path),
        "called by its name": called(by_name, path),
        "called through other modules": called(dotted, path),
        "of the system": called(named("posix", "mkdir"), path),
        "evaluated": called(named("builtins", "eval"), text(f"__import__('os').mkdir({trap!r})")),
        "partial": called(called(named("functools", "partial"), mkdir, path)),
        "an attribute of a function": called(called(through, text("os")), path),
        "an old instance": pickle.MARK + path + pickle.INST + b"os\nmkdir\n",
        "an old object": pickle.MARK + mkdir + path + pickle.OBJ,
        "a new object": mkdir + path + pickle.TUPLE1 + pickle.NEWOBJ,
        "a state": called(named("a", "b")) + state + pickle.BUILD + path + pickle.BUILD,
        "a changed function": called(named("_codecs", "encode") + known, path, text("latin1")),
    }


@pytest.mark.parametrize("how", attacks(""))
def test_what_a_pickle_names_is_not_called(tmp_path, how):
    trap = tmp_path / "trap"
    read(START + attacks(str(trap))[how] + b".")
    assert not trap.exists()


@pytest.mark.parametrize("how", ["called", "called by its name", "partial", "an old object"])
def test_the_attacks_work_where_they_are_believed(tmp_path, how):
    trap = tmp_path / "trap"
    pickle.loads(START + attacks(str(trap))[how] + b".")  # noqa: S301
    assert trap.exists()


def test_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "never_seen.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    assert read(START + named("never_seen", "thing") + b".").name == "never_seen.thing"
    assert "never_seen" not in sys.modules


def test_a_number_of_an_extension_is_refused_and_leaves_pickle_as_it_was():
    copyreg.add_extension("os", "mkdir", 7)
    try:
        with pytest.raises(PickleError, match="the extension code 7"):
            read(START + pickle.EXT1 + b"\x07.")
        assert 7 not in copyreg._extension_cache
    finally:
        copyreg.remove_extension("os", "mkdir", 7)


def test_a_reference_to_elsewhere_is_refused():
    with pytest.raises(PickleError, match="found a reference to data outside"):
        read(START + pickle.PERSID + b"x\n.")


# --- What takes forever -------------------------------------------------------------------------

PAIR = (
    pickle.BINGET
    + b"\0"
    + pickle.BINGET
    + b"\0"
    + pickle.TUPLE2
    + pickle.BINPUT
    + b"\0"
    + pickle.POP
)
# 2**100 tuples if each were expanded
DOUBLED = (
    pickle.EMPTY_TUPLE + pickle.BINPUT + b"\0" + pickle.POP + PAIR * 100 + pickle.BINGET + b"\0"
)
MANY = pickle.MARK + pickle.NONE * 100_000 + pickle.TUPLE + pickle.BINPUT + b"\1"
TABLE = pickle.EMPTY_DICT + pickle.MARK + b"".join(
    pickle.BININT + struct.pack("<i", i) + pickle.NONE for i in range(100_000)
) + pickle.SETITEMS + pickle.TUPLE1 + pickle.BINPUT + b"\1"  # fmt: skip


def again(function, times=10_000):
    return pickle.MARK + (function + pickle.BINGET + b"\1" + pickle.REDUCE) * times


BOMBS = {
    "steps": pickle.MARK + pickle.NONE * (MOST_STEPS + 1),
    "objects": pickle.MARK + pickle.EMPTY_SET * 1_000_000,
    "names": b"".join(named("a", f"b{i}") + pickle.POP for i in range(6_000)),
    "arguments": MANY + again(named("a", "b")),
    "arguments of new objects": MANY + again(named("a", "b")).replace(b"R", b"\x81"),
    "copies of dictionaries": TABLE + again(named("collections", "OrderedDict")),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_pickle_that_describes_too_much_is_refused(bomb):
    with pytest.raises(PickleError, match=r"found millions of objects; save only"):
        read(START + BOMBS[bomb] + b".")


SHARED = pickle.EMPTY_DICT + pickle.MARK + b"".join(
    pickle.BININT + struct.pack("<i", i) + pickle.NONE for i in range(10_000)
) + pickle.SETITEMS + pickle.BINPUT + b"\1" + pickle.POP  # fmt: skip
DEEP = {
    "objects that share their attributes": SHARED
    + pickle.EMPTY_LIST
    + pickle.MARK
    + (called(named("a", "b")) + pickle.BINGET + b"\1" + pickle.BUILD) * 200
    + pickle.APPENDS,
    "lists in lists": pickle.EMPTY_LIST * 300_000 + pickle.APPEND * 299_999,
    "the same list": pickle.EMPTY_LIST
    + b"".join(
        pickle.BINPUT + b"\0" + pickle.POP + pickle.EMPTY_LIST + pickle.MARK
        + (pickle.BINGET + b"\0") * 200_000 + pickle.APPENDS
        for _ in range(3)
    ),
    "a long key": pickle.EMPTY_DICT + text("k" * 10_000) + pickle.EMPTY_LIST + pickle.MARK
    + pickle.EMPTY_LIST * 10_000 + pickle.APPENDS + pickle.SETITEM,
}  # fmt: skip


@pytest.mark.parametrize("how", DEEP)
def test_contents_without_end_are_refused(how):
    found = read(START + DEEP[how] + b".")
    with pytest.raises(PickleError, match="found millions of objects"):
        list(contents(found))


def test_a_key_that_shares_its_parts_takes_no_time():
    found = read(START + DOUBLED + pickle.POP + pickle.EMPTY_DICT + pickle.BINGET + b"\0"
                 + pickle.EMPTY_LIST + pickle.SETITEM + b".")  # fmt: skip
    assert [path for path, _ in contents(found)] == [(), ("a tuple",)]


def test_an_error_does_not_show_what_shares_its_parts():
    encode = called(named("_codecs", "encode"), text("x"), DOUBLED)
    with pytest.raises(PickleError, match="bytes as a string in latin-1, found a tuple"):
        read(START + encode + b".")


def test_tuples_in_tuples_may_be_a_key():
    depth = pickle.EMPTY_TUPLE + pickle.TUPLE1 * 100_000
    assert len(read(START + pickle.EMPTY_DICT + depth + pickle.NONE + pickle.SETITEM + b".")) == 1


def test_bytes_that_are_made_of_a_text_are_made_once():
    content = text("a" * 1000) + text("latin1") + pickle.TUPLE2 + pickle.BINPUT + b"\1"
    content += pickle.EMPTY_LIST + again(named("_codecs", "encode"), 3) + pickle.APPENDS + b"."
    first, *others = read(START + content)
    assert first == b"a" * 1000
    assert all(other is first for other in others)


@pytest.mark.parametrize("code", [pickle.BYTEARRAY8, pickle.BINBYTES8, pickle.BINUNICODE8])
def test_bytes_that_are_not_there_take_no_memory(code):
    with pytest.raises(PickleError):
        read(START + code + struct.pack("<Q", 2**38) + b".")


def test_a_place_in_memory_may_have_any_number():
    assert read(START + pickle.NONE + pickle.LONG_BINPUT + b"\xff" * 4 + b".") is None


# --- What is damaged ----------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    for start in (b"", START):
        try:
            for _, found in contents(read(start + content)):
                as_array(found)
        except PickleError:
            pass


VALID = pickle.dumps(
    {"a": np.arange(3.0), "b": [argparse.Namespace(x=(1, 2))], "c": OrderedDict(x=1)}, 2
)


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=5))
def test_a_damaged_pickle_is_read_or_refused(changes):
    content = bytearray(VALID)
    for at, value in changes:
        content[at] = value
    try:
        for _, found in contents(read(bytes(content))):
            as_array(found)
    except PickleError:
        pass


def test_a_pickle_that_ends_too_early_is_told():
    with pytest.raises(PickleError, match="found one that ends too early"):
        read(VALID[:-1])


def test_reading_leaves_the_working_folder_alone():
    before = set(os.listdir())  # noqa: PTH208
    read(VALID)
    assert set(os.listdir()) == before  # noqa: PTH208
