"""Downloads from a server that misbehaves, and trained weights by name."""

import fcntl
import hashlib
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import densenet_multi as dm
from cases import as_float32, random_weights, small
from densenet_multi import _download, formats
from densenet_multi.formats import pretrained

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server(BaseHTTPRequestHandler):
    """Serves ``files`` with the fault ``manner``, if any; keeps requested ranges in ``asked``."""

    files: dict[str, bytes]
    manner: str
    asked: list[str | None]

    def do_GET(self):
        self.asked.append(self.headers.get("Range"))
        if self.path not in self.files:
            self.send_error(404)
            return
        content, start = self.files[self.path], 0
        if self.headers.get("Range") and self.manner != "no ranges":
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if self.manner == "broken chunks":
            self.send_header("Transfer-Encoding", "chunked")
        elif self.manner.startswith("length "):
            self.send_header("Content-Length", self.manner.removeprefix("length "))
        elif self.manner != "no length":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + 1_000_000 if self.manner == "stops" else len(content)
        begin = b"100000\r\n" if self.manner == "broken chunks" else b""  # announces 1 MiB
        self.wfile.write(begin + content[start:end][: 1000 if begin else None])

    def log_message(self, *arguments):
        """Keep quiet."""


@pytest.fixture
def server():
    handler = type("Handler", (Server,), {"files": {"/file": CONTENT}, "manner": "", "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.released = threading.Event()
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        handler.url = f"http://127.0.0.1:{running.server_port}/file"
        yield handler
        running.released.set()
        running.shutdown()
        thread.join()


def test_a_file_is_fetched_once(server, tmp_path):
    path = tmp_path / "new" / "file"
    for _ in range(2):
        assert _download.download(server.url, path, SHA256) == path
        assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["file", "file.part"])
def test_an_enormous_file_in_its_place_is_not_read(server, tmp_path, name, monkeypatch):
    (tmp_path / name).write_bytes(bytes(5_000_000))
    read, digest = [], _download._digest
    monkeypatch.setattr(_download, "_digest", lambda *it: (read.append(it[0]), digest(*it))[1])
    _download.download(server.url, tmp_path / "file", SHA256, largest=4_000_000)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert (server.asked, read) == ([None], [tmp_path / "file.part"])


@pytest.mark.parametrize("manner", ["no length", "no ranges"])
def test_servers_may_say_little(server, tmp_path, manner):
    server.manner = manner
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    _download.download(server.url, tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.manner = "stops"
    path = tmp_path / "file"
    for have in (1_000_000, 2_000_000):
        with pytest.raises(dm.DownloadError, match="try again to resume it"):
            _download.download(server.url, path, SHA256)
        assert (tmp_path / "file.part").stat().st_size == have
        assert not path.exists()
    _download.download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=2000000-"]


def test_an_answer_that_breaks_its_protocol_is_a_download_error(server, tmp_path):
    server.manner, server.protocol_version = "broken chunks", "HTTP/1.1"
    server.close_connection = True
    with pytest.raises(dm.DownloadError, match="the download failed"):
        _download.download(server.url, tmp_path / "file", SHA256)


def test_a_complete_part_is_only_checked(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    _download.download(server.url, tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_downloads_of_one_file_at_once_do_not_share_their_part(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    with (tmp_path / "file.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as another process would
        _download.download(server.url, tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:1000]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "file.part"]


def test_a_part_that_was_renamed_meanwhile_is_not_written_to(server, tmp_path, monkeypatch):
    path, part = tmp_path / "file", tmp_path / "file.part"
    part.write_bytes(CONTENT[:1000])
    monkeypatch.setattr(fcntl, "flock", lambda *_: part.replace(tmp_path / "of another"))
    assert _download.download(server.url, path, SHA256).read_bytes() == CONTENT
    assert (tmp_path / "of another").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("kind", ["symbolic", "hard", "self"])
def test_what_a_part_leads_to_is_neither_emptied_nor_continued(server, tmp_path, kind):
    server.manner = "no ranges"
    thesis, part = tmp_path / "thesis.txt", tmp_path / "file.part"
    thesis.write_text("years of work")
    part.hardlink_to(thesis) if kind == "hard" else part.symlink_to(
        thesis if kind == "symbolic" else part
    )
    _download.download(server.url, tmp_path / "file", SHA256)
    assert thesis.read_text() == "years of work"
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_link_in_the_cache_stays_one_and_a_pipe_is_never_replaced(server, tmp_path):
    path, there = tmp_path / "file", tmp_path / "large disk" / "file"
    path.symlink_to(there)
    for _ in range(2):
        _download.download(server.url, path, SHA256)
        assert path.is_symlink()
        assert there.read_bytes() == CONTENT
    path.unlink()
    path.symlink_to("pipe")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(dm.DownloadError, match="file: expected a file, found a pipe"):
        _download.download(server.url, path, SHA256)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("length", ["many", "-5", "9" * 5000, "1e6", "³"])
def test_a_length_that_is_no_number_is_a_download_error(server, tmp_path, length):
    server.manner = f"length {length}"
    expected = f"file: expected a Content-Length in digits, found '{length[:80]}'"
    with pytest.raises(dm.DownloadError, match=expected):
        _download.download(server.url, tmp_path / "file", SHA256)


def test_another_file_is_thrown_away(server, tmp_path):
    server.files["/file"] = CONTENT[::-1]
    with pytest.raises(dm.DownloadError, match=f"expected {SHA256}, found sha256:"):
        _download.download(server.url, tmp_path / "file", SHA256)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_in_the_cache_is_fetched_again(server, tmp_path):
    (tmp_path / "file").write_bytes(b"damaged")
    _download.download(server.url, tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_missing_file_is_what_the_server_says(server, tmp_path):
    with pytest.raises(dm.DownloadError, match=r"elsewhere: the server answers 404"):
        _download.download(f"{server.url}elsewhere", tmp_path / "file", SHA256)


def test_a_server_that_hangs_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "TIMEOUT", 0.2)
    server.do_GET = hanging
    with pytest.raises(dm.DownloadError, match="the download failed"):
        _download.download(server.url, tmp_path / "file", SHA256)


def hanging(self):
    self.send_response(200)
    self.send_header("Content-Length", str(len(CONTENT)))
    self.end_headers()
    self.wfile.write(CONTENT[:1000])
    self.server.released.wait(10)


@pytest.mark.parametrize("manner", ["", "no length"])
def test_more_than_is_allowed_is_not_kept(server, tmp_path, manner):
    server.manner = manner
    with pytest.raises(dm.DownloadError, match="expected at most 1,000 bytes"):
        _download.download(server.url, tmp_path / "file", SHA256, largest=1000)
    assert not (tmp_path / "file").exists()


def test_nobody_there_and_other_kinds_of_address(tmp_path):
    with pytest.raises(dm.DownloadError, match="the download failed"):
        _download.download("http://127.0.0.1:9/file", tmp_path / "file", SHA256)
    with pytest.raises(dm.DownloadError, match="expected an address that starts with https"):
        _download.download(f"file://{tmp_path}/x", tmp_path / "file", SHA256)


# --- Trained weights by name --------------------------------------------------------------------

SPEC = small("bottleneck", bn_eps=1e-5, bn_decay=0.9)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSENET_MULTI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def publish(monkeypatch, source, url, checksum, file_format, member=None):
    published = pretrained.Published(url, checksum, file_format, member)
    monkeypatch.setitem(pretrained.SOURCES, source, {"densenet121": published})
    return published


def test_weights_by_name_are_fetched_checked_and_read(server, tmp_path, monkeypatch, cache):
    weights = as_float32(random_weights(SPEC))
    formats.write(tmp_path / "x.safetensors", dm.Checkpoint(SPEC, weights), "torchvision")
    server.files["/file"] = (tmp_path / "x.safetensors").read_bytes()
    sha = hashlib.sha256(server.files["/file"]).hexdigest()[:8]
    publish(monkeypatch, "torchvision", server.url, f"sha256:{sha}", "torchvision")
    for _ in range(2):
        checkpoint = dm.from_pretrained("densenet121")
        for name, array in weights.items():
            np.testing.assert_array_equal(checkpoint.weights[name], array)
    assert len(server.asked) == 1
    assert (cache / "torchvision" / "file").is_file()


@pytest.mark.parametrize("wrong", [False, True])
def test_weights_in_an_archive_are_checked_by_their_own_sum(
    server, tmp_path, monkeypatch, cache, wrong
):
    formats.write(tmp_path / "x.params", dm.Checkpoint(SPEC, as_float32(random_weights(SPEC))))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "x.params", "x.params")
    server.files["/file"] = (tmp_path / "x.zip").read_bytes()
    sha1 = hashlib.sha1((tmp_path / "x.params").read_bytes()).hexdigest()  # noqa: S324
    checksum = f"sha1:{sha1[::-1] if wrong else sha1}"
    publish(monkeypatch, "gluon", server.url, checksum, "gluon", "x.params")
    if wrong:
        with pytest.raises(dm.DownloadError, match=r"expected x\.params with sha1"):
            dm.from_pretrained("densenet121", "gluon")
        assert not list((cache / "gluon").iterdir())
        return
    assert dm.from_pretrained("densenet121", "gluon").spec == SPEC
    assert [path.name for path in (cache / "gluon").iterdir()] == ["x.params"]
    dm.from_pretrained("densenet121", "gluon")
    assert len(server.asked) == 1


def test_an_archive_that_another_process_unpacked_meanwhile_is_not_missed(
    server, tmp_path, monkeypatch, cache
):
    path = cache / "gluon" / "x.params"
    formats.write(tmp_path / "x.params", dm.Checkpoint(SPEC, as_float32(random_weights(SPEC))))
    content = (tmp_path / "x.params").read_bytes()
    checksum = f"sha1:{hashlib.sha1(content).hexdigest()}"  # noqa: S324
    publish(monkeypatch, "gluon", server.url, checksum, "gluon", "x.params")

    def fetched(_, archive, __):
        if there:
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
        return archive

    monkeypatch.setattr(_download, "download", fetched)
    there = False
    with pytest.raises(FileNotFoundError):
        dm.from_pretrained("densenet121", "gluon")
    there = True
    assert dm.from_pretrained("densenet121", "gluon").spec == SPEC


def test_a_damaged_archive_is_refused_and_thrown_away(server, tmp_path, monkeypatch, cache):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.params", CONTENT[:1000] * 9)
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[60:200] = bytes(140)  # makes zlib itself fail
    server.files["/file"] = bytes(content)
    publish(monkeypatch, "gluon", server.url, "sha1:00", "gluon", "x.params")
    with pytest.raises(dm.WeightsError, match=r"expected a zip archive with x\.params"):
        dm.from_pretrained("densenet121", "gluon")
    assert not list((cache / "gluon").iterdir())


def test_names_that_do_not_exist_are_refused_with_the_nearest():
    with pytest.raises(dm.ConfigError, match="did you mean 'torchvision'"):
        dm.from_pretrained("densenet121", "torch-vision")
    with pytest.raises(dm.ConfigError, match="name 'densenet122' does not exist; did you mean"):
        dm.from_pretrained("densenet122")


def test_every_published_file_has_an_address_and_a_checksum():
    for files in pretrained.SOURCES.values():
        for name, published in files.items():
            kind, _, digest = published.checksum.partition(":")
            assert len(digest) == {"sha256": 8, "md5": 32, "sha1": 40}[kind]
            assert published.url.startswith("https://")
            assert name in published.url
            assert published.file_format in formats.FORMATS | {"keras": ()}
