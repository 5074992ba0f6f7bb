"""Files are read within bounds, and written completely or not at all."""

import errno
import os
import socket
import stat
from pathlib import Path
from unittest.mock import Mock

import pytest

import densenet_multi as dm
from cases import as_float32, random_weights, small
from densenet_multi import _files
from densenet_multi._files import (
    check_file,
    open_file,
    open_own,
    put_in_place,
    read_file,
    replace_file,
    replacing,
    resolved,
)

# --- Read ---------------------------------------------------------------------------------------


@pytest.fixture(params=["pipe", "device", "folder"])
def no_file(request, tmp_path):
    """A link to something that is not a regular file, and the word for it."""
    place = {"pipe": tmp_path / "p", "device": Path("/dev/zero"), "folder": tmp_path}[request.param]
    if request.param == "pipe":
        os.mkfifo(place)
    (tmp_path / "link").symlink_to(place)
    return tmp_path / "link", request.param


@pytest.mark.parametrize("read", [check_file, open_file, lambda path: read_file(path, 9)])
def test_what_is_no_file_is_refused_without_being_read(no_file, read):
    link, what = no_file
    expected = f"^{link}: expected a file, found a {what}; use another file$"
    with pytest.raises(OSError, match=expected):
        read(link)


def test_a_socket_cannot_be_opened_and_is_called_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(OSError, match=r"^s: expected a file, found a socket; remove it$"):
            open_file("s", advice="remove it")


def test_a_file_that_becomes_a_pipe_before_it_is_opened_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "file")
    opened = []

    def stat_of_a_file(path):
        opened.append(isinstance(path, int))  # an open descriptor
        return os_stat(path if isinstance(path, int) else __file__)

    os_stat = os.stat
    monkeypatch.setattr(_files.os, "stat", stat_of_a_file)
    with pytest.raises(OSError, match="file: expected a file, found a pipe"):
        read_file(tmp_path / "file", 9)
    assert opened == [True]


def test_files_that_are_refused_are_closed(tmp_path):
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(OSError, match="found a folder"):
            open_file(tmp_path)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_link_to_a_file_is_read_and_one_to_itself_an_oserror(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", 7) == b"content"
    (tmp_path / "loop").symlink_to("loop")
    for use in (check_file, open_file, resolved, lambda path: replace_file(path, b"new")):
        with pytest.raises(OSError, match="loop") as caught:
            use(tmp_path / "loop")
        assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "loop").is_symlink()


def test_a_file_is_bounded_before_it_is_read(tmp_path, monkeypatch):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no space
    monkeypatch.setattr(_files.os, "fdopen", None)
    expected = r"file: expected at most 1,000 bytes, found 1,099,511,627,776; use another file$"
    for read in (check_file, open_file, read_file):
        with pytest.raises(dm.WeightsError, match=expected):
            read(tmp_path / "file", 1000, error=dm.WeightsError)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="Linux has files without a size")
def test_a_file_whose_size_is_not_what_it_says_is_read_within_the_bound():
    assert read_file("/proc/version", 10**4) == Path("/proc/version").read_bytes()
    with pytest.raises(OSError, match="expected at most 10 bytes, found more; use another file"):
        read_file("/proc/version", 10)


# --- Write --------------------------------------------------------------------------------------


def test_a_name_of_our_own_that_becomes_a_link_meanwhile_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "own").symlink_to("thesis.txt")
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)  # as if it were no link yet
    with pytest.raises(OSError, match="own") as caught, open_own(tmp_path / "own"):
        pass
    assert caught.value.errno == errno.ELOOP


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("permissions", [0o600, 0o664, 0o444, 0o222])
def test_a_replaced_file_keeps_its_permissions(tmp_path, permissions):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"old")
    link.symlink_to("file")
    path.chmod(permissions)
    with replacing(link) as temporary:
        assert mode(temporary) == permissions | 0o600  # others gain no access meanwhile
        temporary.write_bytes(b"new")
    assert (mode(path), link.is_symlink()) == (permissions, True)
    path.chmod(0o600)
    assert path.read_bytes() == b"new"


def test_a_replaced_file_keeps_its_group_or_is_closed_to_groups(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o640)
    stat_of, asked = Path.stat, []

    def in_another_group(self, **options):
        found = stat_of(self, **options)
        return os.stat_result((*found[:5], 12345, *found[6:])) if self == path else found

    monkeypatch.setattr(Path, "stat", in_another_group)
    monkeypatch.setattr(os, "chown", lambda *given: asked.append(given[1:]))
    replace_file(path, b"new")
    assert (mode(path), set(asked)) == (0o640, {(-1, 12345)})
    monkeypatch.setattr(os, "chown", Mock(side_effect=PermissionError))
    replace_file(path, b"newer")
    assert (mode(path), path.read_bytes()) == (0o600, b"newer")


def test_weights_keep_their_permissions_and_new_ones_have_the_usual(tmp_path):
    (tmp_path / "usual").touch()
    for path, permissions in ((tmp_path / "a", mode(tmp_path / "usual")), (tmp_path / "b", 0o600)):
        if path.name == "b":
            path.touch(permissions)
        spec = small("plain")
        dm.save_weights(path, spec, as_float32(random_weights(spec)))
        assert mode(path) == permissions


def test_a_folder_is_on_the_disk_with_all_that_is_in_it_before_it_is_renamed(tmp_path, monkeypatch):
    done, fsync = [], os.fsync

    def synced(descriptor):
        fsync(descriptor)
        done.append((os.fstat(descriptor).st_ino, there.exists()))

    monkeypatch.setattr(_files.os, "fsync", synced)
    there, inside = tmp_path / "there", tmp_path / "new" / "inside"
    inside.mkdir(parents=True)
    (inside / "file").touch()
    put_in_place(tmp_path / "new", there)
    expected = {(path.stat().st_ino, False) for path in (there, *there.rglob("*"))}
    assert set(done) == {*expected, (tmp_path.stat().st_ino, True)}


def test_a_folder_that_cannot_be_synced_does_not_matter_and_a_file_does(tmp_path, monkeypatch):
    def refuse(number, kind):
        def fsync(descriptor):
            if stat.S_IFMT(os.fstat(descriptor).st_mode) == kind:
                raise OSError(number, os.strerror(number))

        monkeypatch.setattr(_files.os, "fsync", fsync)

    refuse(errno.EINVAL, stat.S_IFDIR)
    replace_file(tmp_path / "file", b"new")
    for number, kind in ((errno.EIO, stat.S_IFDIR), (errno.EINVAL, stat.S_IFREG)):
        refuse(number, kind)
        with pytest.raises(OSError, match=os.strerror(number)):
            replace_file(tmp_path / "file", b"newer")
