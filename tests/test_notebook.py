"""The notebook of examples/, run as somebody runs it: from the top, in an empty folder."""

import json
import os
import pathlib

import compiling
import nbclient
import nbformat
import pytest

from clevit_jax.system.progress import in_notebook

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "finetune.ipynb"
SHORT = {"EPOCHS = 30": "EPOCHS = 1"}


def _cell(notebook, name):
    (cell,) = [cell for cell in notebook.cells if cell["id"] == name]
    return cell


def _text(notebook, name):
    """What a cell printed and its value as text."""
    outputs = _cell(notebook, name).outputs
    streams = [out["text"] for out in outputs if out.output_type == "stream"]
    return "".join([*streams, *(out.data.get("text/plain", "") for out in _shown(outputs))])


def _shown(outputs):
    return [out for out in outputs if out.output_type in ("display_data", "execute_result")]


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Kernels that find this package, compile as the suite does, and know no user's settings."""
    paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("XLA_FLAGS", compiling.xla_flags(1))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def test_from_the_first_cell_to_the_last(kernel, tmp_path):
    """Every cell runs; an error shows the cell. One epoch, of the leaves that it draws."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = _cell(notebook, "settings")
    for long, short in SHORT.items():
        assert settings.source.count(long) == 1
        settings.source = settings.source.replace(long, short)
    place = tmp_path / "empty"
    place.mkdir()
    client = nbclient.NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(place)}}
    )
    client.execute()

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    last = json.loads((place / "run/evaluation.json").read_text())["last"]
    assert (last["step"], last["count"]) == (6, 60)
    assert f"Right are {last['top1']:.0%} of 60 test images" in _text(notebook, "scores")
    assert "by chance it would be 17%" in _text(notebook, "scores")
    assert "RunResult('run', finished at step 6 of 6)" in _text(notebook, "train")
    assert "6/6 [" in _text(notebook, "train")  # the bar
    assert _text(notebook, "audit").count("0 errors, 1 warning; see run/data_check.txt") == 1
    assert _text(notebook, "predict").count(" is called cultivar-0") == 4
    for name in ("views", "explain"):
        (picture,) = _shown(_cell(notebook, name).outputs)
        assert len(picture.data["image/png"]) > 10_000
    assert {p.name for p in place.iterdir()} == {"leaves", "run", "views.png"}
    (page,) = _shown(_cell(notebook, "report").outputs)
    report = (place / "run/report.html").read_text()
    assert f"{100 * last['top1']:.2f}" in report
    assert "srcdoc=" in page.data["text/html"]
    (start,) = json.loads((place / "run/run.json").read_text())["starts"]
    assert start["command"] == ["notebook"]
    assert not in_notebook()  # here, where Jupyter's packages are imported and no kernel runs
    # Nothing warns, and nothing that is shown names a place on this machine.
    everything = json.dumps([cell.outputs for cell in cells])
    for word in ("Warning:", str(tmp_path), str(ROOT), "site-packages"):
        assert word not in everything


def test_as_it_is_stored():
    """Without outputs, which would go stale and hold paths of a machine; for any Python 3."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert notebook.metadata.kernelspec == {
        "display_name": "Python 3", "language": "python", "name": "python3"
    }  # fmt: skip
    installing = [cell["id"] for cell in notebook.cells if "pip install" in cell.source]
    assert installing == ["install"]
