"""Tables: what is read from a CSV file, what is refused and why, and OpenML by a fake."""

import gzip
import sys
from types import SimpleNamespace

import pytest

import densenet_multi as dm
from densenet_multi.data import DataError, table
from densenet_multi.data.table import fetch_openml, read_csv

TEXT = 'Id,"Lot, m²",Street\r\n1, 12.5 ,Pave\r\n\r\n2,,"a ""b"", c"\r\n'
COLUMNS = {"Id": ["1", "2"], "Lot, m²": ["12.5", ""], "Street": ["Pave", 'a "b", c']}


@pytest.fixture
def written(tmp_path):
    def write(content, name="houses.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_is_read_as_text_with_quotes_and_blank_lines(written, encoding):
    assert read_csv(written(TEXT.encode(encoding))) == table.Table("houses.csv", COLUMNS)


def test_a_compressed_file_is_recognized_by_its_content(written):
    assert read_csv(written(gzip.compress(TEXT.encode()), "houses")).columns == COLUMNS


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "starts with two or more different column names.*found ''"),
        ("Prices of houses\nin Ames\n", "separated by commas; found 'Prices of houses"),
        ("a;b\n1;2\n", "separated by commas; found 'a;b"),
        ('{"a": [1]}', "separated by commas"),
        ("a,b,a,b\n1,2,3,4\n", "found 'a', 'b' more than once"),
        ("a,,b\n1,2,3\n", "found 'a,,b"),
        ("a,b\n1,2\n\n3\n", "line 4: expected 2 cells, as in the header, found 1"),
        ("a,b\n1,2,3\n", "line 2: expected 2 cells, as in the header, found 3"),
        ('a,b\n1,"2\n', "line 2: expected a CSV file, found: unexpected end of data"),
        ('a,b\n1,"2"3\n', "line 2: expected a CSV file, found: ',' expected"),
        (f"a,b\n1,{'2' * 200_000}\n", "line 2: expected a CSV file, found: field larger"),
        (PNG, "in UTF-8, found another encoding or binary data"),
        (b"PK\x03\x04\0\0", "expected a CSV file, found a zip archive; unpack it"),
        ("a,b\n1,\0\n", "in UTF-8, found another encoding or binary data"),
        ("a,ä\n1,2\n".encode("latin-1"), "iconv -f LATIN1"),
        ("a,ä\n1,2\n".encode("utf-16"), "iconv -f UTF-16"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "expected a gzip file, found .*; copy it"),
        (b"\x1f\x8bmore", "expected a gzip file, found .*; copy it again"),
    ],
)
def test_anything_but_a_csv_file_is_refused_with_its_name(written, content, message):
    path = written(content)
    with pytest.raises(DataError, match=f"^{path}.*{message}"):
        read_csv(path)


def test_the_size_is_limited_also_after_decompression(written, monkeypatch):
    monkeypatch.setattr(table, "LARGEST", 100)
    long = b"a,b\n" + b"1,2\n" * 24
    assert len(read_csv(written(long)).columns["a"]) == 24
    with pytest.raises(DataError, match="at most 100 bytes, found 104; use fewer rows"):
        read_csv(written(long + b"1,2\n"))
    with pytest.raises(DataError, match="at most 100 bytes after decompression, found more"):
        read_csv(written(gzip.compress(long + b"1,2\n")))


MISSING = float("nan")


class Column(list):
    def isna(self):
        return [cell in (None, MISSING) for cell in self]


class Frame(dict):
    columns = property(dict.keys)


def fake_openml(monkeypatch, fetch):
    monkeypatch.setitem(sys.modules, "sklearn", SimpleNamespace())
    datasets = SimpleNamespace(fetch_openml=fetch)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", datasets)
    monkeypatch.setattr(sys.modules["sklearn"], "datasets", datasets, raising=False)


def test_a_data_set_of_openml_becomes_a_table_of_text(monkeypatch):
    frame = Frame(Id=Column([1, 2]), Lot=Column([12.5, MISSING]), Street=Column(["Pave", None]))
    fake_openml(
        monkeypatch, lambda name, as_frame: SimpleNamespace(frame=as_frame and name and frame)
    )
    expected = {"Id": ["1", "2"], "Lot": ["12.5", ""], "Street": ["Pave", ""]}
    assert fetch_openml("house_prices") == table.Table("OpenML's house_prices", expected)


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (ImportError("needs pandas"), dm.BackendNotInstalledError, "pip install pandas"),
        (OSError("no network"), DataError, "^openml: .*found no network; or use a CSV file"),
        (ValueError("No active dataset"), DataError, "^openml: .*found No active dataset"),
    ],
)
def test_openml_without_pandas_network_or_name_is_an_error(monkeypatch, raised, error, message):
    def fetch(**_):
        raise raised

    fake_openml(monkeypatch, fetch)
    with pytest.raises(error, match=message):
        fetch_openml("house_prices")


def test_openml_without_scikit_learn_states_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        dm.BackendNotInstalledError, match=r"openml needs 'sklearn'.*'\.\[tabular\]"
    ):
        fetch_openml("house_prices")
