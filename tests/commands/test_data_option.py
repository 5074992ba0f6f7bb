"""What may be typed after ``--data``, and how a run remembers it."""

import pytest
from PIL import Image

import densenet_multi as dm
from densenet_multi.commands.train import options_from


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "own" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "own" / name / "0.png")
    return tmp_path / "own"


def options(config=None, **typed):
    return options_from({"backend_name": dm.backend_names()[0], **typed}, config)


def test_a_folder_is_remembered_with_its_kind_and_its_place(folder):
    for typed in ("own", "./own", str(folder), "folder:own", f"folder:{folder}"):
        assert options(data=typed).data == f"folder:{folder}"
    assert options(data="sample").data == "sample"
    assert options().data == "fashion-mnist"


def test_a_run_resumes_with_the_same_folder_however_it_is_typed(folder, monkeypatch):
    config = options(data="own").to_dict()
    monkeypatch.chdir(folder)
    for typed in (".", "../own", f"folder:{folder}"):
        assert options(config, data=typed).data == f"folder:{folder}"
    with pytest.raises(dm.ConfigError, match=r"--data: expected 'folder:.*own', as this run began"):
        options(config, data="..")
