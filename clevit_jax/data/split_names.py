"""Names of splits as people write them: train, training_set, cars_train, val2018, Testdaten, 訓練.

One name alone is taken for a split only where it says nothing else: `split_called`. A name that
says more, as `cars_train`, needs a partner that says the same of another split: `splits_among`.
"""

import re
import unicodedata
from collections.abc import Iterable


def _plain(text: str) -> str:
    """A text without capitals and accents."""
    parts = unicodedata.normalize("NFKD", text.lower())
    marked = (letter for letter in parts if unicodedata.category(letter) != "Mn")
    return unicodedata.normalize("NFC", "".join(marked))


# Words of a name; the split that each means.
_ENGLISH = {
    "train": "train training trn trainval",
    "val": "val valid validation validate dev development",
    "test": "test testing tst eval evaluation holdout",
}
_OTHERS = {
    "train": "lernen entrainement apprentissage entrenamiento treino treinamento addestramento "
    "allenamento trening treningowy träning eğitim обучение обучающая тренировка тренировочная "
    "训练 訓練 学習 훈련 학습",
    "val": "validierung validación validação validazione convalida validatie validering walidacja "
    "walidacyjny doğrulama валидация валидационная 验证 驗證 検証 검증",
    "test": "prüfung pruefung prueba pruebas teste testes testowy тест тестовая 测试 測試 テスト "
    "評価 테스트 평가",
}
_WORDS = {
    _plain(word): split
    for words in (_ENGLISH, _OTHERS)
    for split, each in words.items()
    for word in each.split()
}
# Words that add nothing to these.
FILLERS = frozenset(
    [
        *("set", "sets", "split", "splits", "data", "dataset", "datasets", "folder"),
        *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"),
        *("file", "files", "list", "lists", "label", "labels", "labelled", "labeled"),
        *("annotation", "annotations", "info", "metadata", "meta", "public", "private"),
        *("mini", "small", "full", "all", "final", "resized", "cropped", "augmented", "raw"),
        *("daten", "datensatz", "bilder", "donnees", "photos", "datos", "conjunto", "de"),
        *("imagenes", "dados", "imagens", "dati", "immagini"),
        *map(_plain, ("данные", "выборка", "изображения", "集", "数据", "数据集", "图片", "图像")),
        *map(_plain, ("データ", "データセット", "用", "画像", "데이터", "세트", "이미지")),
    ]
)
# A split and a filler in one word, as trainset, trainval, Trainingsdaten and 训练集.
_GLUED = re.compile(
    rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))})(s?)"
    rf"({'|'.join(sorted((*FILLERS, *_WORDS), key=len, reverse=True))})"
)
# Words for images to predict: no split, but a partner of one.
_TO_PREDICT = frozenset(
    ["pred", "predict", "prediction", "predictions", "unlabelled", "unlabeled", "inference"]
)
# Of two names of the test split, those that mean validation then: `train`, `eval` and `test`.
_OR_VALIDATION = frozenset(("eval", "evaluation", "public"))


def split_called(name: str) -> str | None:
    """The split that a name means by itself: 'train', 'val' or 'test'; None if it means none.

    >>> split_called("Training_set"), split_called("val2018"), split_called("cars_train")
    ('train', 'val', None)
    """
    split, rest = _told(words_of(name))
    return None if rest else split


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """The splits that some names beside each other mean; names that mean none are left out.

    >>> splits_among(["cars_train", "cars_test", "docs"])
    {'cars_train': 'train', 'cars_test': 'test'}
    >>> splits_among(["freight train", "bus"])
    {}

    Args:
        names: of folders, of tables without their ending, or the values of a column.

    Returns:
        Name -> 'train', 'val' or 'test', in the order of the names. Several names may mean one
        split. Where `eval` stands beside another test split, it is the validation split.
    """
    words = {name: words_of(name) for name in names}
    told = {name: _told(inside) for name, inside in words.items()}
    # What is said besides -> the splits that it is said of; images to predict count as one.
    partners: dict[tuple[str, ...], set[str]] = {}
    for split, rest in told.values():
        if split is None and rest and rest[-1] in _TO_PREDICT:
            split, rest = "predict", rest[:-1]
        if split is not None:
            partners.setdefault(rest, set()).add(split)
    splits = {
        name: split
        for name, (split, rest) in told.items()
        if split is not None and (not rest or len(partners[rest]) > 1)
    }
    tests = [name for name, split in splits.items() if split == "test"]
    doubtful = [name for name in tests if _OR_VALIDATION & set(words[name])]
    if "val" not in splits.values() and len(doubtful) < len(tests):
        splits |= dict.fromkeys(doubtful, "val")
    return splits


def split_and_rest(name: str) -> tuple[str | None, str]:
    """The split that a name speaks of, and what it says besides.

    >>> split_and_rest("images_variant_train"), split_and_rest("train_list")
    (('train', 'variant'), ('train', ''))
    """
    split, rest = _told(words_of(name))
    return split, " ".join(rest)


def is_to_predict(name: str) -> bool:
    """Whether a name says that its images have no label: `seg_pred`, `unlabelled`."""
    return bool(_TO_PREDICT & set(words_of(name)))


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, apart at capitals, digits and signs; no numbers."""
    text = unicodedata.normalize("NFKC", name)
    text = _plain(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))
    words = list[str]()
    for word in re.findall(r"[^\W\d_]+", text):
        glued = None if word in _WORDS else _GLUED.fullmatch(word)
        words += [glued[1], glued[3]] if glued else [word]
    return words


def _told(words: list[str]) -> tuple[str | None, tuple[str, ...]]:
    """The split that words mean, and the words that say something else."""
    splits = list(dict.fromkeys(_WORDS[word] for word in words if word in _WORDS))
    rest = tuple(word for word in words if word not in _WORDS and word not in FILLERS)
    if splits == ["train", "val"]:  # trainval: what is trained on, with the validation split in it
        splits = ["train"]
    return (splits[0] if len(splits) == 1 else None), rest
