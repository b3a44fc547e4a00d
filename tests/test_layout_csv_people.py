"""Columns of tables as people have them: splits, no header, other letters, many names."""

import pytest
from csv_folders import EXPECTED, NAMES, NINE, counts, made, of, problem, told, touch

from clevit_jax.data import sources
from clevit_jax.data.layouts.listing import Request


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("data set", lambda i: "train" if i < 6 else "test"),
        ("dataset", lambda i: "Training" if i < 6 else "Testing"),
        ("Partition", lambda i: "TRAIN" if i < 6 else "TEST"),
        ("phase", lambda i: "train" if i < 6 else "eval"),
        ("usage", lambda i: "Training" if i < 6 else "PublicTest"),
        ("mode", lambda i: "trn" if i < 6 else "tst"),
        ("type", lambda i: "train" if i < 6 else "valid"),
        ("is_train", lambda i: int(i < 6)),
        ("is_training_image", lambda i: int(i < 6)),
        ("is_training_img", lambda i: f"{float(i < 6)}"),
        ("is_valid", lambda i: i >= 6),
        ("is_validation", lambda i: "yes" if i >= 6 else "no"),
        ("isTest", lambda i: "t" if i >= 6 else "f"),
        ("test", lambda i: int(i >= 6)),
        ("train", lambda i: str(i < 6).upper()),
        ("whatever", lambda i: "train set" if i < 6 else "test set"),
    ],
)
def test_own_split_columns_are_read(tmp_path, column, cell):
    root = made(tmp_path, f"filename,label,{column}", lambda i: f"{NINE[i]},{of(i)},{cell(i)}")
    data = sources.load_dataset(root)
    assert [example.name for example in data.train] == [f"images/{file}" for file in NINE[:6]]
    assert [example.name for example in data.test] == [f"images/{file}" for file in NINE[6:]]
    assert f"split column {column!r}" in data.recognised_by
    assert bool(data.warnings) == (column == "whatever")
    if data.warnings:
        assert "the split is read from the column 'whatever'" in data.warnings[0]
    drawn = sources.load_dataset(root, request=Request(split_column="none"))
    assert counts(drawn) == {"train": 7, "test": 2}


def test_three_splits_by_columns_of_yes_and_no(tmp_path):
    for header, cells in [
        ("is_valid,is_test", ("0,0", "1,0", "0,1")),
        ("is_train,is_valid", ("1,0", "0,1", "0,0")),
        ("is_train,is_val,is_test", ("1,0,0", "0,1,0", "0,0,1")),
    ]:
        rows = [f"{file},{of(i)},{cells[i // 3]}" for i, file in enumerate(NINE)]
        root = made(tmp_path, f"file,label,{header}", rows.__getitem__)
        data = sources.load_dataset(root)
        assert counts(data) == {"train": 3, "val": 3, "test": 3}
        assert data.test[0].name == "images/0006.jpg"
    root = made(tmp_path, "file,label,is_valid,is_test", lambda i: f"{NINE[i]},{of(i)},1,1")
    assert "rows have a split that says no split, or two" in problem(root)


@pytest.mark.parametrize("first", [0, 1])
def test_a_column_of_folds_is_tested_on(tmp_path, first):
    root = made(tmp_path, "filename,label,fold", lambda i: f"{NINE[i]},{of(i)},{i // 3 + first}")
    data = sources.load_dataset(root)
    assert [example.name for example in data.test] == [f"images/{file}" for file in NINE[:3]]
    assert "fold 0 of 3, by the column 'fold'; data.folds=3 with data.fold=1" in data.recognised_by
    split = sources.SplitConfig(folds=3, fold=2)
    data = sources.load_dataset(root, split=split)
    assert [example.name for example in data.test] == [f"images/{file}" for file in NINE[6:]]
    assert data.recognised_by.endswith("fold 2 of 3, by the column 'fold'")
    found = problem(root, split=sources.SplitConfig(folds=5, fold=2))
    assert "has 3 folds in its column 'fold', but data.folds is 5; set data.folds=3" in found
    drawn = sources.load_dataset(root, split=split, request=Request(split_column="none"))
    assert "fold 2 of 3, by seed 0" in drawn.recognised_by


def test_a_fold_that_holds_a_class_is_named(tmp_path):
    root = made(tmp_path, "filename,label,fold", lambda i: f"{NINE[i]},{of(i)},{i % 3}")
    found = problem(root)
    assert "fold 0 of 3, by the column 'fold', holds every image of the class 'rose'" in found
    assert "set data.split_column=none" in found
    drawn = sources.load_dataset(root, request=Request(split_column="none"))
    assert counts(drawn) == {"train": 7, "test": 2}


def test_folds_of_another_name_are_asked_for(tmp_path):
    root = made(tmp_path, "filename,label,part", lambda i: f"{NINE[i]},{of(i)},{i // 3}")
    assert "cut by seed" in sources.load_dataset(root).recognised_by
    data = sources.load_dataset(root, request=Request(split_column="part"))
    assert "fold 0 of 3, by the column 'part'" in data.recognised_by


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("split", lambda i: i // 6, "the column 'split' holds '0' in 6 rows, '1' in 3 rows, and"),
        (
            "split",
            lambda i: "train" if i < 4 else "?",
            "5 rows have a split that is not train, val",
        ),
        ("split", lambda i: "train" if i < 4 else "", "5 rows have a split that is not train, val"),
    ],
)
def test_a_split_that_is_none_is_named_once(tmp_path, column, cell, said):
    root = made(tmp_path, f"file,label,{column}", lambda i: f"{NINE[i]},{of(i)},{cell(i)}")
    assert said in problem(root)


@pytest.mark.parametrize("column", ["mode", "type", "group", "source"])
def test_columns_of_other_things_are_no_split(tmp_path, column):
    root = made(tmp_path, f"file,label,{column}", lambda i: f"{NINE[i]},{of(i)},{'ab'[i % 2]}")
    data = sources.load_dataset(root)
    assert counts(data) == {"train": 7, "test": 2}
    assert not data.warnings


def test_no_header(tmp_path):
    root = made(tmp_path, "", lambda i: f"{NINE[i]},{of(i)}")
    data = sources.load_dataset(root)
    assert told(data) == EXPECTED
    (warning,) = data.warnings
    assert "no header: column 1 is the file, column 2 the label; data.header=true" in warning
    # The same, with the columns named by their numbers, and in another order.
    made(root, "", lambda i: f"{of(i)},x,{NINE[i]}")
    request = Request(header="false", file_column="3", label_column="1")
    assert told(sources.load_dataset(root, request=request)) == EXPECTED
    # By force, the first line is names: the data set lacks an image then.
    request = Request(header="true", file_column="0000.jpg", label_column="rose")
    root = made(tmp_path, "", lambda i: f"{NINE[i]},{of(i)}")
    assert len(told(sources.load_dataset(root, request=request))) == 8


@pytest.mark.parametrize(
    "row",
    [
        lambda i: f"{i:04},{of(i)}",  # no ending
        lambda i: f"images/{NINE[i]},{i % 3},{of(i)}",  # number and name
        lambda i: f"{of(i)},{NINE[i]}",
        lambda i: f"{NINE[i]},{of(i)},{'train' if i < 6 else 'test'}",
        lambda i: f"{NINE[i]},1,2,30,40,{of(i)}",  # a box
        lambda i: f"{i},{NINE[i]},{of(i)}",
    ],
)
def test_no_header_in_other_forms(tmp_path, row):
    assert told(sources.load_dataset(made(tmp_path, "", row))) == EXPECTED


def test_no_header_and_no_way_to_tell(tmp_path):
    root = made(tmp_path, "", lambda i: f"{NINE[i]},{of(i)},{'ab'[i % 2]}")
    assert (
        "the columns '2' (3 classes), '3' (2 classes) may all hold the label; set "
        "data.label_column=2 or data.label_column=3."
    ) in problem(root)
    data = sources.load_dataset(root, request=Request(label_column="2"))
    assert told(data) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_letters_and_separators(tmp_path, encoding, line_end, sep):
    trees = ("épinette", "sapin", "mélèze à feuilles")
    root = touch(tmp_path, [f"images/{file}" for file in NINE])
    rows = ["image,label", *(f"{file},{trees[i % 3]}" for i, file in enumerate(NINE))]
    text = line_end.join(rows).replace(",", sep) + line_end
    (root / "train.csv").write_bytes(text.encode(encoding))
    data = sources.load_dataset(root)
    assert data.class_names == tuple(sorted(trees))
    assert bool(data.warnings) == (encoding == "cp1252")
    if data.warnings:
        assert "line 2: not UTF-8 text, read as Windows-1252 (" in data.warnings[0]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("gbk", "玫瑰花"), ("cp1251", "роза"), ("shift_jis", "ばら"), ("cp1253", "τριαντάφυλλο")],
)
def test_letters_that_cannot_be_told_are_named_by_their_line(tmp_path, encoding, text):
    root = touch(tmp_path, [f"images/{file}" for file in NINE])
    rows = "image,label\n" + "".join(f"{file},{text}{i % 3}\n" for i, file in enumerate(NINE))
    (root / "train.csv").write_bytes(rows.encode(encoding))
    assert problem(root).endswith("train.csv, line 2: not UTF-8 text; save the file as UTF-8.")


def test_first_line_of_excel(tmp_path):
    root = made(tmp_path, "", lambda i: f"{NINE[i]};{of(i)}; a, b", sep=",")
    text = "sep=;\nimage;label;note\n" + (root / "train.csv").read_text()
    (root / "train.csv").write_text(text + "gone.jpg;rose;\n")
    assert "train.csv, line 12: the file 'gone.jpg'" in problem(root)
    (root / "train.csv").write_text(text)
    assert told(sources.load_dataset(root)) == EXPECTED


def test_commas_too_many(tmp_path):
    root = made(tmp_path, "image,label", lambda i: f"{NINE[i]},{of(i)},")
    data = sources.load_dataset(root)
    assert told(data) == EXPECTED
    assert "9 row(s) end in a ',' too many, from line 2 on" in data.warnings[0]
    root = made(tmp_path, "image,label,", lambda i: f"{NINE[i]},{of(i)},")
    assert not sources.load_dataset(root).warnings
    root = made(tmp_path, "image,label", lambda i: f"{NINE[i]},{of(i)}{', red' if i > 3 else ''}")
    found = problem(root)
    assert "5 rows have another number of fields than the 2 that the header has" in found
    assert "(line 6: 3, line 7: 3, line 8: 3, ...)" in found


def test_rows_numbered_without_a_header(tmp_path):
    """As R's write.table has them."""
    root = made(tmp_path, "image,label", lambda i: f"{i + 1},{NINE[i]},{of(i)}")
    assert told(sources.load_dataset(root)) == EXPECTED


@pytest.mark.parametrize(
    ("file", "label"),
    [
        ("id", "breed"), ("ids", "variety"), ("filenames", "cultivar"), ("filepaths", "y"),
        ("image_path", "species"), ("img_path", "scientific_name"), ("image_name", "cls"),
        ("fname", "labels"), ("photo", "taxon"), ("picture", "disease"), ("uuid", "plant"),
        ("Image File Name", "tag"), ("name", "class"), ("Image", "Id"),
        ("file.name", "Class.Label"),
        ("image", "genus"), ("foto", "label"), ("image", "Sorte"),
    ],
)  # fmt: skip
def test_names_of_columns(tmp_path, file, label):
    root = made(tmp_path, f"{file},{label}", lambda i: f"{NINE[i]},{of(i)}")
    data = sources.load_dataset(root)
    assert told(data) == EXPECTED
    is_guess = label in ("Id", "genus", "tag", "y", "Sorte") or file == "foto"
    assert bool(data.warnings) == is_guess


def test_an_id_is_the_file_only_where_it_is_one(tmp_path):
    root = made(tmp_path, "id,file_name,label", lambda i: f"{i + 1},{NINE[i]},{of(i)}")
    assert told(sources.load_dataset(root)) == EXPECTED
    root = made(tmp_path, "id,breed", lambda i: f"{i:04},{of(i)}", name="labels.csv")
    (root / "train.csv").unlink()
    assert told(sources.load_dataset(root)) == EXPECTED
    root = made(tmp_path, "id,breed", lambda i: f"{i + 100},{of(i)}", name="labels.csv")
    assert "no column is known to hold the file, of 'id', 'breed'" in problem(root)


def test_a_number_and_its_name(tmp_path):
    root = made(
        tmp_path, "class id,filepaths,labels", lambda i: f"{i % 3},images/{NINE[i]},{of(i)}"
    )
    data = sources.load_dataset(root)
    assert data.class_names == NAMES  # in the order of the numbers
    assert told(data) == EXPECTED


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        (
            "image,label,class",
            lambda i: f"{i % 3},{of(i)}",
            "the columns 'label' (3 classes), 'class' (3 classes) may all hold the label; set "
            "data.label_column=label or data.label_column=class.",
        ),
        (
            "image,genus,species",
            lambda i: f"{('Rosa', 'Tulipa', 'Lilium')[i % 3]},alba",
            "'genus' (3 classes), 'species' (1 class) may all",
        ),
        (
            "image,genus,species",
            lambda i: f"{('Rosa', 'Tulipa')[i % 2]},{('alba', 'rubra')[i // 2 % 2]}",
            "'genus' (2 classes), 'species' (2 classes), both together (4 classes) may all hold "
            "the label; set data.label_column=genus or data.label_column=species or "
            "data.label_column=genus+species.",
        ),
        (
            "image,species,individual_id",
            lambda i: f"{('orca', 'beluga')[i % 2]},w{i % 4}",
            "'species' (2 classes), 'individual_id' (4 classes) may all hold",
        ),
        (
            "image,Id,species",
            lambda i: f"w{i % 4},{('orca', 'beluga')[i % 2]}",
            "'Id' (4 classes), 'species' (2 classes) may all hold",
        ),
        (
            "image,plant,disease",
            lambda i: f"{('apple', 'grape')[i % 2]},{('rot', 'healthy')[i // 2 % 2]}",
            "both together (4 classes) may all hold the label",
        ),
    ],
)
def test_what_can_be_read_in_two_ways_is_asked_about(tmp_path, header, row, said):
    root = made(tmp_path, header, lambda i: f"{NINE[i]},{row(i)}")
    assert said in problem(root)


def test_two_columns_are_one_class_together(tmp_path):
    root = made(
        tmp_path,
        "image,genus,species",
        lambda i: f"{NINE[i]},{('Rosa', 'Tulipa')[i % 2]},{('alba', 'rubra')[i // 2 % 2]}",
    )
    data = sources.load_dataset(root, request=Request(label_column="genus+species"))
    assert data.class_names == ("Rosa alba", "Rosa rubra", "Tulipa alba", "Tulipa rubra")
    (genus,) = data.levels
    assert (genus.name, genus.groups) == ("genus", ("Rosa", "Rosa", "Tulipa", "Tulipa"))


def test_coarser_columns_are_kept(tmp_path):
    kinds = [("Rosaceae", "Rosa", "Rosa alba"), ("Rosaceae", "Rosa", "Rosa rubra"),
             ("Rosaceae", "Malus", "Malus alba"), ("Poaceae", "Poa", "Poa annua")]  # fmt: skip
    root = made(
        tmp_path,
        "image,species,genus,family",
        lambda i: f"{NINE[i]},{','.join(kinds[i % 4][::-1])}",
    )
    data = sources.load_dataset(root)
    assert data.class_names == tuple(sorted(kind[2] for kind in kinds))
    assert [level.name for level in data.levels] == ["family", "genus"]
    assert data.levels[0].groups == ("Rosaceae", "Poaceae", "Rosaceae", "Rosaceae")
    assert data.levels[1].groups == ("Malus", "Poa", "Rosa", "Rosa")
    # A category is one, too, and a column that crosses the classes is none.
    root = made(tmp_path, "image,label,category,family",
                lambda i: f"{NINE[i]},{of(i)},{'ab'[i % 3 > 0]},{'xy'[i % 2]}")  # fmt: skip
    data = sources.load_dataset(root)
    assert [(level.name, level.groups) for level in data.levels] == [("category", ("b", "a", "b"))]
    assert data.class_names == ("lily", "rose", "tulip")


def test_scientific_names_beside_labels(tmp_path):
    """The set of birds has a number, a name and a scientific name for each class."""
    names = {"ROBIN": "ERITHACUS RUBECULA", "WREN": "TROGLODYTES TROGLODYTES"}
    rows = [
        f"{i},train/{label}/{k}.jpg,{label},train,{science}"
        for i, (label, science) in enumerate(names.items())
        for k in range(3)
    ]
    for label in names:
        for k in range(3):
            path = tmp_path / f"train/{label}/{k}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    header = "class id,filepaths,labels,data set,scientific name"
    (tmp_path / "birds.csv").write_text("\n".join([header, *rows]) + "\n")
    data = sources.load_dataset(tmp_path)
    assert data.class_names == ("ROBIN", "WREN")


def test_the_folders_of_files_tell_the_splits_of_a_table_that_tells_none(tmp_path):
    files = [f"{'train' if i < 6 else 'test'}/{file}" for i, file in enumerate(NINE)]
    root = touch(tmp_path, files)
    rows = [f"{file},{of(i)}\n" for i, file in enumerate(files)]
    (root / "labels.csv").write_text("filename,label\n" + "".join(rows))
    data = sources.load_dataset(root)
    assert [example.name for example in data.train] == files[:6]
    assert [example.name for example in data.test] == files[6:]
    assert "the split of each image is that of its folder" in data.warnings[0]
    drawn = sources.load_dataset(root, request=Request(split_column="none"))
    assert counts(drawn) == {"train": 7, "test": 2}
    assert not drawn.warnings


@pytest.mark.parametrize(
    ("column", "cell"), [("id", str), ("image_id", str), ("image_id", lambda i: f"{i}.0")]
)
def test_numbers_without_their_zeros_are_files(tmp_path, column, cell):
    root = made(tmp_path, f"{column},label", lambda i: f"{cell(i)},{of(i)}")
    data = sources.load_dataset(root)
    assert told(data) == EXPECTED
    assert f"by their numbers ('{cell(0)}' is 'images/0000.jpg')" in data.warnings[0]
    touch(root, ["images/007.jpg"])  # 7 may be either
    assert "8 of them may be those" in problem(root)


def test_remarks_above_the_header_are_passed_over(tmp_path):
    root = made(tmp_path, "", lambda i: "")
    (root / "train.csv").write_text(
        "# A survey, 2020\n#\nfile,label\n" + "".join(f"{n},{of(i)}\n" for i, n in enumerate(NINE))
    )
    data = sources.load_dataset(root)
    assert told(data) == EXPECTED
    (root / "train.csv").write_text("# A survey\nfile,label\n0000.jpg,\n0001.jpg,rose\n")
    assert "line 3" in problem(root)


@pytest.mark.parametrize("name", ["Etiketten.csv", "train.csv"])
@pytest.mark.parametrize("header", ["Bildname;Klasse", "文件名;类别"])
def test_the_only_table_is_read_whatever_its_columns_are_called(tmp_path, name, header):
    root = made(tmp_path, header, lambda i: f"{NINE[i]};{of(i)}", name=name)
    data = sources.load_dataset(root)
    assert told(data) == EXPECTED
    file, label = header.split(";")
    assert f"the files are read from the column {file!r}" in data.warnings[0]
    assert f"the class is read from the column {label!r} (3 classes)" in data.warnings[1]


@pytest.mark.parametrize(
    ("column", "cell", "classes"),
    [
        ("landmark_id", lambda i: 100 + i % 3, ("100", "101", "102")),
        ("is_rose", lambda i: i % 2, ("0", "1")),
        ("diseased", lambda i: i % 2 == 0, ("False", "True")),
    ],
)
def test_the_only_other_column_is_the_class(tmp_path, column, cell, classes):
    root = made(tmp_path, f"image,{column}", lambda i: f"{NINE[i]},{cell(i)}")
    data = sources.load_dataset(root)
    assert data.class_names == classes
    assert told(data) == {f"images/{file}": str(cell(i)) for i, file in enumerate(NINE)}
    assert f"the class is read from the column {column!r}" in data.warnings[0]
    root = made(tmp_path, "image,height", lambda i: f"{NINE[i]},{i % 3}")
    assert "no column is known to hold the label, of 'image', 'height'" in problem(root)


def test_a_split_in_other_tables_is_not_lost_in_silence(tmp_path):
    root = made(tmp_path, "file,label", lambda i: f"{NINE[i]},{of(i)}", name="labels.csv")
    (root / "train.csv").write_text("\n".join(["file", *NINE[:6]]) + "\n")
    (root / "val.csv").write_text("\n".join(["file", *NINE[6:]]) + "\n")
    found = problem(root)
    assert "labels.csv has labels, and 'train.csv', 'val.csv' beside it files without" in found
    assert "add a column 'split' to it" in found
    drawn = sources.load_dataset(root, request=Request(split_column="none"))
    assert counts(drawn) == {"train": 7, "test": 2}


def test_numbers_that_another_table_has_the_files_of_mean_none(tmp_path):
    root = made(tmp_path, "image_id,label", lambda i: f"{i},{of(i)}", name="labels.csv")
    files = "".join(f"{i},{NINE[8 - i]}\n" for i in range(9))
    (root / "images.csv").write_text(f"image_id,filename\n{files}")
    assert "9 files are not in" in problem(root)


def test_codes_of_images_beside_a_test_table(tmp_path):
    root = made(tmp_path, "id_code,diagnosis", lambda i: f"{i:04},{i % 3}")
    (root / "test.csv").write_text("id_code\n0a1\n0a2\n")
    touch(root, ["test_images/0a1.png", "test_images/0a2.png"])
    data = sources.load_dataset(root)
    assert told(data) == {f"images/{file}": str(i % 3) for i, file in enumerate(NINE)}
    assert any("test.csv has no column of labels" in warning for warning in data.warnings)
