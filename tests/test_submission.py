"""`--mode predict --submission`: forms as competitions have them, filled in as they are."""

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest

from clevit_jax.analysis.form_classes import choose_filling
from clevit_jax.analysis.form_images import ImagesById, find_ids
from clevit_jax.analysis.submission import write_submission
from clevit_jax.analysis.submission_form import read_form
from clevit_jax.errors import ConfigError
from clevit_jax.main import main

LEAVES = ("Black-grass", "Charlock", "Sugar beet")  # in the order of a run
SHARES = np.array([0.2, 0.7, 0.1])  # of an image


def form_of(folder, text, name="sample_submission.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return read_form(path)


def fill(folder, text, class_names=LEAVES, given="", shares=SHARES):
    """What is written for one image, and what is said of it."""
    filling = choose_filling(form_of(folder, text), 0, class_names, given, "run")
    return filling.cells(np.asarray(shares)), filling.said


# The forms of competitions, each with the classes as its training data has them.
def test_a_class_by_its_name(tmp_path):
    """Plant Seedlings."""
    cells, said = fill(tmp_path, "file,species\na.png,Sugar beet\nb.png,Sugar beet\n")
    assert cells == ["Charlock"]
    assert said == "the class in the column 'species', by its name in the run"


def test_a_class_by_a_number_that_is_its_name(tmp_path):
    """Cassava and Herbarium, where the data has numbers."""
    assert fill(tmp_path, "image_id,label\na.jpg,2\n", ("0", "1", "2"))[0] == ["1"]
    cells, said = fill(tmp_path, "Id,Predicted\n0,0\n1,0\n", ("17", "230", "9000"))
    assert cells == ["230"]
    assert "by its number in the data (0 in the form is none of them)" in said


def test_a_file_of_classes_by_its_place(tmp_path, monkeypatch):
    """`~` and variables are resolved, as in every path."""
    (tmp_path / "names.txt").write_text("Sugar beet\nBlack-grass\nCharlock\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fill(tmp_path, "id,label\na,0\n", given="~/names.txt")[0] == ["2"]
    assert fill(tmp_path, "id,label\na,0\n", given="$HOME/names.txt")[0] == ["2"]


def test_a_class_by_a_number_that_is_not_known(tmp_path):
    """Asked: first number, or a file; Cassava's own, a table, or names alone."""
    text = "image_id,label\na.jpg,2\n"
    with pytest.raises(
        ConfigError,
        match=r"the column 'label' holds numbers \(2\), and run calls its classes 'Black-grass' to "
        r"'Sugar beet'; .*--form_classes=0 \(or 1\) .*--form_classes=FILE",
    ):
        fill(tmp_path, text)
    cells, said = fill(tmp_path, text, given="0")
    assert cells == ["1"]
    assert "0 = 'Black-grass' to 2 = 'Sugar beet'" in said
    assert fill(tmp_path, text, given="1")[0] == ["2"]
    codes = {"12": "Charlock", "0": "Sugar beet", "3": "Black-grass"}
    files = {
        "codes.json": json.dumps(codes),
        "turned.json": json.dumps({name: int(code) for code, name in codes.items()}),
        "codes.csv": "number;class\n" + "".join(f"{k};{v}\n" for k, v in codes.items()),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        assert fill(tmp_path, text, given=str(tmp_path / name))[0] == ["12"], name
    (tmp_path / "names.txt").write_text("Sugar beet\nBlack-grass\nCharlock\n")
    assert fill(tmp_path, text, given=str(tmp_path / "names.txt"))[0] == ["2"]
    (tmp_path / "few.json").write_text('{"0": "Sugar beet", "1": "Blackgrass"}')
    with pytest.raises(
        ConfigError, match=r"few.json lacks 2 of the 3 classes: 'Black-grass', 'Charlock' \(is it "
    ):
        fill(tmp_path, text, given=str(tmp_path / "few.json"))


def test_a_column_for_each_class(tmp_path):
    """Dog Breed, Leaf Classification, Plant Pathology; in another order and spelling than ours."""
    text = "id,sugar_beet,Charlock,black grass\na,0.3,0.3,0.3\n"
    cells, said = fill(tmp_path, text)
    assert list(map(float, cells)) == [0.1, 0.7, 0.2]
    assert said == "the probability of each class in its column, 'sugar_beet' to 'black grass'"
    for head in (
        "id,p_Charlock,p_Black-grass,p_Sugar beet",
        "id,Charlock_p,Black-grass_p,Sugar beet_p",
    ):
        assert list(map(float, fill(tmp_path, head + "\na,0,0,0\n")[0])) == [0.7, 0.2, 0.1]
    head = "img,c1,c0,c2"  # State Farm
    assert list(map(float, fill(tmp_path, head + "\na,0,0,0\n", ("0", "1", "2"))[0])) == [
        0.7,
        0.2,
        0.1,
    ]
    with pytest.raises(ConfigError, match=r"columns 'c1' to 'c2' are numbered, .*--form_classes=0"):
        fill(tmp_path, head + "\na,0,0,0\n")
    assert list(map(float, fill(tmp_path, head + "\na,0,0,0\n", given="0")[0])) == [0.7, 0.2, 0.1]


def test_columns_that_are_no_classes(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"2 of its 3 columns are no class of run: 'Charlok', 'weed' \(is it 'Charlock'\?\)",
    ):
        fill(tmp_path, "id,Charlok,Sugar beet,weed\na,0,0,0\n")
    said = fill(tmp_path, "id,Charlock,Sugar beet\na,0,0\n")[1]
    assert "(the form has no column for 1 of the classes: 'Black-grass')" in said


def test_the_five_most_probable(tmp_path):
    """Humpback Whale: several classes with blanks between, one of them none of ours."""
    whales = tuple(f"w_{i}" for i in range(7))
    text = "Image,Id\na.jpg,new_whale w_1 w_2 w_3 w_4\n"
    shares = [0.1, 0.3, 0.05, 0.2, 0.02, 0.25, 0.08]
    cells, said = fill(tmp_path, text, whales, shares=shares)
    assert cells == ["w_1 w_5 w_3 w_0 w_6"]
    assert "the 5 most probable classes" in said
    assert "('new_whale' in the form is none of the classes)" in said
    assert fill(tmp_path, "Image,Id\na,1 0 2\n", given="0")[0] == ["1 0 2"]
    assert fill(tmp_path, "Image,Id\na,x\n", ("x", "y"), shares=[0.4, 0.6])[0] == ["y"]
    assert fill(tmp_path, "Image,Id\na,x y z\n", ("x", "y"), shares=[0.4, 0.6])[0] == ["y x"]


def test_the_probability_of_one_class(tmp_path):
    """Dogs vs. Cats, and Invasive Species, whose column has the name of the class."""
    pets = ("cat", "dog")
    with pytest.raises(
        ConfigError, match=r"holds 0.5, which looks like a probability; .*--form_classes='dog'"
    ):
        fill(tmp_path, "id,label\n1,0.5\n", pets, shares=[0.25, 0.75])
    cells, said = fill(tmp_path, "id,label\n1,0.5\n", pets, "cat", [0.25, 0.75])
    assert cells == ["0.25"]
    assert said == "the probability of 'cat' in the column 'label'"
    species = ("invasive", "native")
    assert fill(tmp_path, "name,invasive\n1,0.5\n", species, shares=[0.25, 0.75])[0] == ["0.25"]
    with pytest.raises(ConfigError, match=r"no file dgo, and run has no class 'dgo'; did you mean"):
        fill(tmp_path, "id,label\n1,0.5\n", pets, "dgo", [0.25, 0.75])
    with pytest.raises(ConfigError, match="is for a form with one column"):
        fill(tmp_path, "id,cat,dog\n1,0.5,0.5\n", pets, "dog", [0.25, 0.75])


def test_classes_spelt_otherwise(tmp_path):
    """As the form has them where it shows all; else the spelling of the others is asked for."""
    text = "file,species\na,Sugar_beet\nb,charlock\nc,Black grass\n"
    assert fill(tmp_path, text)[0] == ["charlock"]
    with pytest.raises(
        ConfigError,
        match=r"holds 'Sugar_beet', and run has no such class \(is it 'Sugar beet'\?\);",
    ):
        fill(tmp_path, "file,species\na,Sugar_beet\n")
    assert fill(tmp_path, "file,species\na,\n")[0] == ["Charlock"]


@pytest.mark.parametrize(
    ("ids", "files"),
    [
        (["b.png", "a.png"], ["x/b.png", "a.png"]),
        (["b", "a"], ["x/b.png", "a.JPG"]),  # without an ending
        (["b.jpg", "a.jpg"], ["b.png", "a.png"]),  # with another
        (["B.JPG", "a.JPG"], ["b.jpg", "a.jpg"]),
        (["x/1", "y/1"], ["x/1.png", "y/1.png"]),  # a path
        (["in/x/1.png", "in/y/1.png"], ["x/1.png", "y/1.png"]),
        (["test_images/1.png", "test_images/2.png"], ["1.png", "2.png"]),  # of another machine
        (["x\\1.png", "y\\1.png"], ["x/1.png", "y/1.png"]),
        (["7", "12"], ["00007.png", "00012.png"]),
        (["0", "12"], ["000.png", "012.png"]),
        (["a.b", "a"], ["a.b.png", "a.png"]),
        (["Cafe\u0301", "a"], ["Caf\u00e9.png", "a.png"]),
    ],
)
def test_ids_of_images(tmp_path, ids, files):
    paths = [tmp_path / "in" / file for file in files]
    text = "image,label\n" + "".join(f"{id_},0\n" for id_ in ids)
    form = form_of(tmp_path, text)
    assert find_ids(form, ImagesById([*reversed(paths), tmp_path / "in/other.png"]), "in") == (
        0,
        paths,
    )


def test_the_column_of_ids(tmp_path):
    """Neither the one that pandas counts rows in, nor a 0 that is also the name of an image."""
    images = ImagesById([tmp_path / f"{i}.png" for i in range(4)])
    form = form_of(tmp_path, ",label,id\n0,0,3\n1,0,2\n")
    assert find_ids(form, images, "in") == (2, [tmp_path / "3.png", tmp_path / "2.png"])
    filling = choose_filling(form, 2, ("0", "1"), "", "run")
    assert filling.columns == [1]


def test_ids_without_an_image(tmp_path):
    images = ImagesById(
        [pathlib.Path("in/a.png"), pathlib.Path("in/x/1.png"), pathlib.Path("in/y/1.png")]
    )
    for text, part in (
        ("id,y\na,0\nb,0\nc,0\n", r"2 of 3 ids of the column 'id' have no image in in: 'b', 'c';"),
        ("id,y\na,0\n1,0\n", r"1 of 2 ids .* more than one image, such as '1': in/x/1.png, in/y/"),
        ("id,y\nq,0\n", r"no row names an image of in: 'id' holds 'q', and images are called 'a.p"),
        ("a.png,0\nx/1.png,0\n", r"has no header: its first line names the image 'a.png'; put"),
    ):
        with pytest.raises(ConfigError, match=part):
            find_ids(form_of(tmp_path, text), images, "in")


def test_what_is_no_form(tmp_path):
    for content, part in (
        (b"id\na\n", "has one column"),
        (b"id,label\n", "has no rows"),
        (b"id,label\na,b,c\n", "line 2: 3 cells, but the header has 2"),
        (b"PK\x03\x04", "is an archive; unpack it"),
        (b"id,label\n\xff\xff,1\n", "is not UTF-8"),
        (b'id,label\n"a,1\n', "line 2"),
        (b"", "has no rows"),
    ):
        (tmp_path / "form.csv").write_bytes(content)
        with pytest.raises(ConfigError, match=part):
            read_form(tmp_path / "form.csv")
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read: No such file"):
        read_form(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def images(answered, tmp_path_factory):
    """Six test images, called 0 to 5, one that is torn, and one that no form names."""
    folder = tmp_path_factory.mktemp("images") / "test"
    folder.mkdir()
    for number, path in enumerate(sorted((answered.parent / "data" / "test").iterdir())[:7]):
        shutil.copy(path, folder / f"{number}.png")
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:90])
    return folder


def test_a_whole_form(trained, images, tmp_path, monkeypatch, capsys):
    """Its header, order and ids; the classes are those that the classifier gives."""
    monkeypatch.setattr(trained.classifier, "class_names", ("ash", "oak, red", "elm", "fir"))
    text = 'id ,"species"\r\n5.png,elm\r\ntorn.png,elm\r\n0.png,elm\r\n3.png,elm\r\n5.png,elm\r\n'
    form = tmp_path / "form.csv"
    form.write_text(text, newline="")
    output = tmp_path / "out.csv"
    assert write_submission(trained, str(images), output, form) == 1
    out, err = capsys.readouterr()
    assert "Writes the class in the column 'species', by its name in the run.\n" in out
    assert "4 image(s) of " in out
    assert "5 rows, in the order of " in out
    assert "1 of images that cannot be read are left as they were there: " in out
    assert "torn.png" in err
    written = output.read_bytes().decode()
    assert written.startswith('id ,"species"\r\n')
    assert written.count("\r\n") == written.count("\n") == 6
    rows = list(csv.reader(written.splitlines()))[1:]
    assert [row[0] for row in rows] == ["5.png", "torn.png", "0.png", "3.png", "5.png"]
    expected = [
        p.class_name for p in trained.classifier.predict([images / f"{i}.png" for i in (5, 0, 3)])
    ]
    assert [row[1] for row in rows] == [expected[0], "elm", *expected[1:], expected[0]]
    with pytest.raises(ConfigError, match="exists already"):
        write_submission(trained, str(images), output, form)


@pytest.mark.parametrize("flip", [False, True])
def test_a_whole_form_of_probabilities(trained, images, tmp_path, monkeypatch, flip):
    names = ("ash", "elm", "fir", "oak")
    monkeypatch.setattr(trained.classifier, "class_names", names)
    form, output = tmp_path / "form.csv", tmp_path / "out.csv"
    form.write_text("id;oak;ash;elm;fir\n" + "".join(f"{i};0;0;0;0\n" for i in (4, 1, 2)))
    assert write_submission(trained, str(images), output, form, flip=flip) == 0
    rows = list(csv.DictReader(output.read_text().splitlines(), delimiter=";"))
    assert list(rows[0]) == ["id", "oak", "ash", "elm", "fir"]
    assert [row["id"] for row in rows] == ["4", "1", "2"]
    pixels = np.stack([trained.classifier.pixels(images / f"{i}.png") for i in (4, 1, 2)])
    expected = trained.classifier.probabilities(pixels, flip=flip)
    found = [[float(row[name]) for name in names] for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_flags_that_do_not_go_together(capsys):
    from absl import flags

    from clevit_jax import flags as command_line

    start = ["x", "--mode=predict", "--workdir=w", "--input=i", "--output=o.csv"]
    for more, part in (
        (["--submission=f.csv", "--top=3"], "--top does not go with --submission"),
        (["--submission=f.csv", "--resume"], "--resume does not go with --submission"),
        (["--form_classes=0"], "--form_classes is for --submission FORM"),
    ):
        values = flags.FlagValues()
        command_line.define(values)
        values([*start, *more])
        assert main(["x"], values) == 2
        assert part in capsys.readouterr().err
