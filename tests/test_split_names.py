"""Names that mean a split, as data sets that people know have them."""

import pytest

from clevit_jax.data.split_names import is_to_predict, split_called, splits_among


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ("train val test", "train val test"),
        ("Train VALID Testing", "train val test"),
        ("training_set test_set", "train test"),
        ("trainset valset testset", "train val test"),
        ("train_images test_images", "train test"),
        ("TrainImages TestImages", "train test"),
        ("cars_train cars_test devkit", "train test -"),
        ("seg_train seg_test seg_pred", "train test -"),
        ("train2018 val2018 test2018", "train val test"),
        ("train_val2018 test2018", "train test"),
        ("trainval test", "train test"),
        ("train dev eval", "train val test"),
        ("train eval test", "train val test"),
        ("Training PublicTest", "train test"),
        ("Training PublicTest PrivateTest", "train val test"),
        ("veg_train veg_val fru_train", "train val -"),
        ("images_variant_train images_variant_test variants", "train test -"),
        ("Trainingsdaten Testdaten Validierungsdaten", "train test val"),
        ("Lernen Prüfung", "train test"),
        ("entraînement entrai\u0302nement validation", "train train val"),
        ("entrenamiento validación prueba", "train val test"),
        ("treino teste", "train test"),
        ("训练集 验证集 测试集", "train val test"),
        ("訓練データ 検証用 テストデータ", "train val test"),
        ("обучающая_выборка тест", "train test"),
        ("학습데이터 테스트", "train test"),
        # Classes whose names hold such a word stand alone with it.
        ("bus car freight_train", "- - -"),
        ("contest attest straining", "- - -"),
        ("tests testament trained", "- - -"),
        ("crash-test-dummy lab", "- -"),
    ],
)
def test_splits_among(names, splits):
    told = splits_among(names.split())
    assert [told.get(name, "-") for name in names.split()] == splits.split()


def test_one_name_alone():
    assert split_called(" validation ") == "val"
    assert split_called("cars_train") is None
    assert split_called("none") is None
    assert split_called("") is None
    assert is_to_predict("seg_pred")
    assert not is_to_predict("predator")
