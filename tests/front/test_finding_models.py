"""Where a model's name is looked for, and what is said of one that does not exist."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from onnxlens import _catalog as catalog
from onnxlens.runtime.errors import BundleError


@pytest.fixture
def found_in(tmp_path, bundle, monkeypatch):
    """Puts a bundle in a place; the three places are folders of this test's own."""
    places = {place: tmp_path / place / "models" for place in ("here", "user", "shipped")}
    monkeypatch.setattr(catalog, "places", lambda: places)
    monkeypatch.chdir(tmp_path)

    def put(place: str, name: str) -> Path:
        return Path(shutil.copytree(bundle("base"), places[place] / name))

    return put


def test_nothing_given_is_the_model_that_ships(found_in):
    assert catalog.find() == found_in("shipped", catalog.SHIPPED)


def test_a_name_is_looked_for_here_then_in_the_folder_of_the_user_then_in_the_package(found_in, tmp_path):
    for place in ("shipped", "user", "here"):  # each hides the one before
        path = found_in(place, "one")
        assert catalog.find("one") == path
        assert [(found.name, found.place) for found in catalog.installed()] == [("one", place)]


def test_a_path_comes_first(found_in, tmp_path):
    found_in("here", "one")
    shutil.copytree(tmp_path / "here/models/one", tmp_path / "one")
    assert catalog.find("one") == Path("one")
    assert catalog.find(tmp_path / "one") == tmp_path / "one"


def test_a_home_folder_is_expanded(found_in, monkeypatch, tmp_path):
    found_in("here", "one")
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    assert catalog.find("~/models/one") == tmp_path / "here/models/one"


def error_of(name) -> str:
    with pytest.raises(BundleError) as caught:
        catalog.find(name)
    return str(caught.value)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest(found_in):
    found_in("here", "gpt2")
    found_in("user", "mine")
    assert error_of("gpt-2") == (
        "There is no model 'gpt-2'; known models: gpt2, mine. Did you mean 'gpt2'? Give one of these, or a bundle's "
        "path, or make one with 'onnxlens export'."
    )


def test_an_unknown_name_where_there_are_none(found_in):
    assert error_of("gpt2").startswith("There is no model 'gpt2'; no models are installed.")


@pytest.mark.parametrize("name", ["x" * 5000, "~no-such-user-here/x", "a\0b", "a/" * 100])
def test_a_name_that_no_file_can_have_is_unknown_too(found_in, name):
    assert error_of(name).startswith(f"There is no model {name!r}; "[:1000])  # errors are cut in their middle


def test_a_checkpoint_that_is_no_bundle_says_how_to_make_one(found_in, tmp_path):
    (tmp_path / "my checkpoint").mkdir()
    (tmp_path / "my checkpoint" / "config.json").write_text("{}")
    assert error_of("my checkpoint") == (
        "my checkpoint is a checkpoint, not a bundle: it has no onnxlens.json. Make a bundle of it: "
        "onnxlens export 'my checkpoint' FOLDER"
    )


def test_a_folder_or_file_that_is_no_bundle_is_not_taken_for_a_checkpoint(found_in, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").touch()
    assert error_of("folder") == "folder is not a bundle: it has no onnxlens.json."
    assert error_of("notes.txt") == "notes.txt is a file, and a bundle is a folder with onnxlens.json in it."


@pytest.mark.parametrize("part", ["onnxlens.json", "onnx", "onnx/model.onnx"])
def test_a_part_of_a_bundle_names_the_bundle(found_in, tmp_path, part):
    bundle = tmp_path / "a bundle"
    (bundle / "onnx").mkdir(parents=True)
    for name in ("onnxlens.json", "onnx/model.onnx"):
        (bundle / name).touch()
    assert error_of(f"a bundle/{part}") == (
        f"a bundle/{part} is part of a bundle; give the bundle's folder, '{bundle.resolve()}'."
    )


def test_half_written_exports_are_not_models(found_in, tmp_path):
    found_in("here", "one")
    found_in("here", ".one.partial")
    (tmp_path / "here/models/empty").mkdir()
    assert [found.name for found in catalog.installed()] == ["one"]


def test_the_real_places(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    places = catalog.places()
    assert list(places) == ["here", "user", "shipped"]
    assert places["here"] == Path("models")
    assert (places["shipped"] / "__init__.py").is_file()


def test_the_model_that_ships_is_found_by_its_name_from_another_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = catalog.places()["shipped"] / catalog.SHIPPED
    assert catalog.find(catalog.SHIPPED).resolve() == folder.resolve()
    assert catalog.find() == folder


def test_models_lists_them_with_their_places(found_in, command):
    found_in("shipped", catalog.SHIPPED)
    found_in("here", "broken")
    (Path("here/models/broken/onnxlens.json")).write_text("{")
    rows = {row["name"]: row for row in command("models", "--json").json}
    assert rows[catalog.SHIPPED]["default"] is True
    assert rows[catalog.SHIPPED]["place"] == "shipped"
    assert rows[catalog.SHIPPED]["parameters"] == 36608
    assert rows[catalog.SHIPPED]["state"] == "ok"
    assert "is damaged and cannot be read" in rows["broken"]["state"]
    ran = command("models")
    assert ran.code == 0
    assert "ships with onnxlens" in ran.out
    assert "damaged, see below" in ran.out
    assert "\nbroken: The manifest " in ran.out


def test_models_where_there_are_none(found_in, command):
    assert command("models", "--json").json == []
    ran = command("models")
    assert ran.code == 0
    assert "Looked in: " in ran.out


def test_a_model_is_used_by_its_name(found_in, command):
    found_in("user", "mine")
    assert command("predict", "the cat", "-m", "mine", "--json", "--provider", "cpu").json["model"] == "mine"


def test_a_link_is_found_by_its_own_name(found_in):
    target = found_in("here", "mine")
    (target.parent / "latest").symlink_to("mine")
    assert catalog.find("latest").resolve() == target
    assert {found.name for found in catalog.installed()} == {"mine", "latest"}
