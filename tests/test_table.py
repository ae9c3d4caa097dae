"""Vectors of one's own: tables of every format, every numeric type, and what is refused."""

import re

import numpy as np
import pytest
import torch
from tables import points, write_csv
from torch.utils.data import DataLoader, TensorDataset

from litdiffusion.data import DataModule, TableData, as_batch, facts_of
from litdiffusion.data.batch import Batch
from litdiffusion.errors import UserError

X = points(20).astype(np.float32).astype(np.float64)


def table(path, **settings) -> TableData:
    data = TableData(**{"path": path, "batch_size": 4, "seed": 0, "val_size": 5, **settings})
    data.load()
    return data


def rows_of(data: DataModule) -> torch.Tensor:
    """All items, in an order that does not depend on how they were held out."""
    both = torch.cat([data.train.data, data.val.data])
    return both[both[:, 0].argsort()]


EXPECTED = torch.from_numpy(X).float()[torch.from_numpy(X[:, 0]).argsort()]


def lines(separator: str, header: str | None, x=X) -> str:
    rows = [separator.join(repr(float(value)) for value in row) for row in x]
    return "\n".join(([header] if header is not None else []) + rows)


TEXTS = {
    "commas": lines(",", "x,y"),
    "semicolons": lines(";", "x;y"),
    "tabs": lines("\t", "x\ty"),
    "spaces": lines("   ", "x y"),
    "no header": lines(",", None),
    "a byte order mark": "\ufeff" + lines(",", "x,y"),
    "quotes and blanks": lines(" , ", '"x", "y"'),
    "empty lines and Windows's ends": lines(",", "x,y\n").replace("\n", "\r\n") + "\r\n\r\n",
    "a header of NumPy's savetxt": lines(" ", "# x y"),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_way_to_write_a_csv_gives_the_same_rows(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_bytes(text.encode())
    data = table(path)
    assert torch.equal(rows_of(data), EXPECTED)
    assert (data.shape, data.num_classes, data.class_names, data.name) == ((2,), 0, (), "points")
    assert (len(data.train.data), len(data.val.data), data.train.data.dtype) == (15, 5, torch.float32)


ARRAYS = {
    "npy": lambda path: np.save(path / "t.npy", X),
    "npy in Fortran's order, big-endian": lambda path: np.save(path / "t.npy", np.asfortranarray(X.astype(">f8"))),
    "npy with fields": lambda path: np.save(path / "t.npy", np.rec.fromarrays(X.T, names="x,y")),
    "npz of one array": lambda path: np.savez(path / "t.npz", x=X),
    "npz of columns": lambda path: np.savez(path / "t.npz", x=X[:, 0], y=X[:, 1]),
    "npz of blocks": lambda path: np.savez_compressed(path / "t.npz", x=X[:, :1], rest=X[:, 1:]),
}


@pytest.mark.parametrize("write", ARRAYS.values(), ids=ARRAYS)
def test_every_kind_of_array_gives_the_same_rows(tmp_path, write):
    write(tmp_path)
    (path,) = tmp_path.iterdir()
    assert torch.equal(rows_of(table(path)), EXPECTED)


def test_parquet_gives_the_same_rows(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="the extra `tables` is not installed")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"x": X[:, 0], "y": X[:, 1]}), tmp_path / "t.parquet")
    assert torch.equal(rows_of(table(tmp_path / "t.parquet")), EXPECTED)


def test_columns_are_chosen_by_name_in_their_order(tmp_path):
    write_csv(tmp_path / "t.csv", np.c_[X, X[:, 0] + 1], "x,y,z")
    assert torch.equal(rows_of(table(tmp_path / "t.csv", columns=["x", "y"])), EXPECTED)
    assert torch.equal(
        table(tmp_path / "t.csv", columns=["y", "x"]).train.data[:, [1, 0]], _train(tmp_path, ["x", "y"])
    )
    assert table(tmp_path / "t.csv", columns=["z"]).shape == (1,)
    np.save(tmp_path / "t.npy", X)
    assert torch.equal(table(tmp_path / "t.npy", columns=[1]).train.data, _train(tmp_path, ["y"]))


def _train(tmp_path, columns) -> torch.Tensor:
    return table(tmp_path / "t.csv", columns=columns).train.data


LABELS = {
    "text": (["b", "a", "c"], ("a", "b", "c")),
    "whole numbers": ([10, 9, 2], ("2", "9", "10")),
    "numbers as floats": ([10.0, 2.5, -1.0], ("-1", "2.5", "10")),
    "one that is text": ([10, 9, "x"], ("10", "9", "x")),
}


@pytest.mark.parametrize(("values", "names"), LABELS.values(), ids=LABELS)
def test_class_labels_are_indices_into_sorted_names(tmp_path, values, names):
    kinds = [values[i % 3] for i in range(20)]
    data = table(write_csv(tmp_path / "t.csv", X, "x,y,kind", kinds), label_column="kind")
    assert (data.class_names, data.num_classes, data.shape) == (names, 3, (2,))
    found = {tuple(x.tolist()): names[k] for part in (data.train, data.val) for x, k in zip(*part[:2], strict=True)}
    short = {value: f"{value:g}" if isinstance(value, float) else str(value) for value in values}
    assert found == {tuple(x): short[kind] for x, kind in zip(X.tolist(), kinds, strict=True)}


def test_arrays_of_another_length_are_no_matter_unless_they_are_chosen(tmp_path):
    """The usual file of a split: X_train, y_train, X_test, y_test; the labels may be a column (N, 1)."""
    kinds = np.arange(20)[:, None] % 2
    np.savez(tmp_path / "t.npz", X_train=X, y_train=kinds, X_test=X[:3], y_test=kinds[:3])
    data = table(tmp_path / "t.npz", columns=["X_train"], label_column="y_train")
    assert torch.equal(rows_of(data), EXPECTED)
    assert data.class_names == ("0", "1")
    with pytest.raises(UserError, match=r"columns of unequal length \(X_train 20, y_test 3\)"):
        table(tmp_path / "t.npz", columns=["X_train"], label_column="y_test")


READ = {
    "names": ("x,y\n", {}, "coordinates x, y (the names are those of line 1)"),
    "no names": ("", {}, "coordinates 0, 1 (the file has no header)"),
    "names that count": ("0,1\n", {}, "coordinates 0, 1 (the names are those of line 1)"),
    "chosen": ("x,y\n", {"columns": ["y"]}, "coordinates y (the names are those of line 1)"),
    "labels": ("x,kind\n", {"label_column": "kind"}, "coordinates x, classes in kind (the names are"),
}


@pytest.mark.parametrize(("header", "settings", "words"), READ.values(), ids=READ)
def test_what_was_read_of_a_table_is_said(tmp_path, capsys, header, settings, words):
    (tmp_path / "t.csv").write_text(header + "1.5,2\n3,4\n5,2\n7,4\n")
    table(tmp_path / "t.csv", val_size=1, batch_size=1, **settings)
    assert f"t.csv: 4 rows, {words}" in capsys.readouterr().out


def test_a_model_reads_other_tables_by_the_names_of_its_columns(tmp_path, command, trained):
    """The config of what ran holds the names: another order of columns does not matter, other names are refused."""
    write_csv(tmp_path / "a.csv", X)
    write_csv(tmp_path / "b.csv", X[:, ::-1], "y,x")
    write_csv(tmp_path / "c.csv", X, "x,z")
    small = ["model.hidden=8", "data.batch_size=4", "metrics=none", "callbacks.final_samples=null"]
    run = trained("data=table", f"data.path={tmp_path}/a.csv", "recipe=flow", *small)
    asked = ["scripts/likelihood.py", f"ckpt={run}/checkpoints/last.ckpt", "n=2", "method=flow"]
    first, second, other = (command(*asked, f"out={tmp_path}/out_{k}", f"data_path={tmp_path}/{k}.csv") for k in "abc")
    numbers = [re.findall(r"-?\d+\.\d{4}", out)[-4:] for _, out, _ in (first, second)]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 4
    assert other[0] == 2
    assert "c.csv has no column y (it has x, z)" in other[2]


def test_class_labels_of_arrays(tmp_path):
    np.savez(tmp_path / "t.npz", x=X, kind=np.arange(20) % 2 == 0)
    assert table(tmp_path / "t.npz", label_column="kind").class_names == ("False", "True")
    np.savez(tmp_path / "u.npz", x=X, kind=np.array(["ä", "o"])[np.arange(20) % 2])
    assert table(tmp_path / "u.npz", label_column="kind").class_names == ("o", "ä")
    np.save(tmp_path / "t.npy", np.c_[X, np.arange(20) % 3])
    data = table(tmp_path / "t.npy", label_column=2)
    assert (data.shape, data.class_names) == ((2,), ("0", "1", "2"))


BAD = {
    "text": ("x,y\n1,2\n3,four\n", {}, r"t\.csv, row 2 \(line 3\), column y: 'four' is not a number"),
    "a decimal comma": ("x;y\n1,5;2\n2;3\n", {}, r"row 1 \(line 2\), column x: '1,5' is not a number"),
    "an empty cell": ("x,y\n1,2\n\n3,\n", {}, r"row 2 \(line 4\), column y: an empty cell"),
    "NaN": ("x,y\n1,2\nnan,2\nNaN,1\n", {}, r"row 2 \(line 3\), column x: nan is not finite, and 1 more rows"),
    "infinity": ("x,y\n1,2\n1,-inf\n", {}, r"row 2 \(line 3\), column y: -inf is not finite"),
    "a ragged row": ("x,y\n1,2\n3\n", {}, r"t\.csv, line 3: 1 fields, but the table has 2 columns \(x, y\)"),
    "too long a row": ("x,y\n1,2\n3,4,5\n", {}, r"line 3: 3 fields"),
    "equal names": ("x,x\n1,2\n3,4\n", {}, r"several columns called 'x'"),
    "nothing": ("", {}, r"is empty"),
    "a header alone": ("x,y\n", {}, r"has no rows"),
    "one row": ("x,y\n1,2\n", {}, r"at least 2 are needed"),
    "an unknown column": (
        "x,y\n1,2\n",
        {"columns": ["x", "yy"]},
        r"has no column yy; did you mean y\? \(it has x, y\)",
    ),
    "no columns": ("x,y\n1,2\n", {"columns": []}, r"data\.columns=0: must be at least 1"),
    "the label as a column": ("x,y\n1,2\n", {"columns": ["x", "y"], "label_column": "y"}, r"name each column once"),
    "a label alone": ("y\n1\n1\n", {"label_column": "y"}, r"has no column beside data\.label_column=y"),
    "a missing label": ("x,k\n1,a\n2,\n", {"label_column": "k"}, r"row 2 \(line 3\), column k: no class label"),
    "a label that pandas writes for none": ("x,k\n1,a\n2,NaN\n", {"label_column": "k"}, r"row 2 .* 'NaN' stands for a"),
    "NA": ("x,k\n1,a\n2,NA\n3,a\n", {"label_column": "k"}, r"row 2 \(line 3\), column k: 'NA' stands for a missing"),
    "an index": (",x,y\n0,1,2\n1,3,4\n", {}, r"column 1 has no name, .* by data\.columns=\[x,y\]"),
    "an index beside names that count": (",0,1\n0,1,2\n1,3,4\n", {}, r"column 1 has no name, .*data\.columns=\[0,1\]"),
    "an underscore": ("x,y\n1,2\n1_0,4\n", {}, r"row 2 \(line 3\), column x: '1_0' is not a number"),
    "labels that differ": ("x,k\n1,a\n2,b\n", {"label_column": "k"}, r"column k: every row has another value"),
    "too large": ("x\n1e300\n1\n", {}, r"column x: float32 cannot tell its values apart"),
    "too far": (
        "x\n1e9\n1000000001\n1000000002\n",
        {},
        r"column x: float32 cannot tell .* about 1000000",
    ),
}


@pytest.mark.parametrize(("text", "settings", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_ends_in_one_line_with_its_place(tmp_path, text, settings, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        table(tmp_path / "t.csv", **{"val_size": 1, **settings})
    assert "\n" not in str(error.value)


def test_files_that_are_no_tables(tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object))
    np.savez(tmp_path / "unequal.npz", x=np.zeros(3), y=np.zeros(4))
    np.savez(tmp_path / "scalar.npz", x=np.zeros(3), n=np.array(3))
    np.save(tmp_path / "complex.npy", np.zeros((4, 2), dtype=complex))
    np.save(tmp_path / "dates.npy", np.zeros(4, dtype="datetime64[s]"))
    np.save(tmp_path / "nan.npy", np.array([[1.0, 2.0], [3.0, np.nan]]))
    for name in ("torn.npy", "torn.npz", "t.xlsx"):
        (tmp_path / name).write_bytes(b"\x93NUMPY")
    (tmp_path / "latin.csv").write_bytes("é,y\n1,2\n".encode("latin-1"))
    messages = {
        "cube.npy": r"shape \(2, 2, 2\); a table has shape",
        "objects.npy": "cannot be read",
        "unequal.npz": r"unequal length \(x 3, y 4\)",
        "scalar.npz": "n is a single number",
        "complex.npy": "column 0: holds complex128",
        "dates.npy": "column 0: holds datetime64",
        "nan.npy": r"nan\.npy, row 2, column 1: nan is not finite",
        "torn.npy": "cannot be read",
        "torn.npz": "cannot be read",
        "t.xlsx": r"ends in \.csv, \.npy, \.npz, \.parquet",
        "latin.csv": "not in UTF-8",
        "none.csv": "no such file",
    }
    for name, message in messages.items():
        with pytest.raises(UserError, match=message) as error:
            table(tmp_path / name)
        assert "\n" not in str(error.value), name


def test_parquet_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"pip install 'pyarrow>=15'"):
        table(tmp_path / "t.parquet")


def test_a_tenth_is_held_out_and_a_constant_column_is_allowed(tmp_path):
    data = table(write_csv(tmp_path / "t.csv", np.c_[X, np.full(20, 0.1)], "x,y,c"), val_size=None)
    assert (len(data.train.data), len(data.val.data), data.shape) == (18, 2, (3,))


# ---- every numeric type, from classes of one's own ----

TYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "bool", ">f8"]
NUMBERS = np.array([[0, 1], [1, 1], [1, 0], [0, 0]])


class Own(DataModule):
    """A data module whose items have any type."""

    shape = (2,)

    def __init__(self, data, class_label=None):
        super().__init__(batch_size=2, val_size=1, seed=0)
        self.items = Batch(data, class_label)

    def read(self):
        return self.items, self.items


@pytest.mark.parametrize("kind", TYPES)
def test_vectors_of_every_type_are_read_as_floats(kind):
    array, expected = NUMBERS.astype(kind), torch.from_numpy(NUMBERS).float()
    own = Own(array, np.arange(4))
    own.load()
    batches = [as_batch(array), as_batch((array, np.arange(4))), own.train, next(iter(own.train_dataloader()))]
    if kind not in (">f8", "uint16", "uint32"):
        tensor = torch.from_numpy(array)
        batches += [as_batch(tensor), as_batch([tensor])]
        with pytest.warns(UserWarning, match=r"read as items of shape \(2,\)"):
            batches.append(facts_of(DataLoader(TensorDataset(tensor, torch.arange(4)), batch_size=3)).train)
    with pytest.warns(UserWarning, match="read as items"):
        batches.append(facts_of(DataLoader(list(array), batch_size=4, collate_fn=np.stack)).train)
    for batch in batches:
        assert batch.data.dtype == torch.float32
        assert len(batch.data) == 2 or torch.equal(batch.data, expected)
    assert own.train.class_label.dtype == torch.int64


def test_images_of_bytes_are_in_minus_one_to_one_and_other_integers_are_refused():
    image = np.array([[[[0, 255]]]])
    assert as_batch(image.astype(np.uint8)).data.flatten().tolist() == [-1.0, 1.0]
    assert as_batch(image.astype(np.float64)).data.flatten().tolist() == [0.0, 255.0]
    for kind in ("int64", "int32", "uint16", "bool"):
        with pytest.raises(UserError, match="images must be floats or bytes") as error:
            as_batch(image.astype(kind))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.array([["a"]]), "items must be numbers, but the data hold <U1"),
        (np.zeros((2, 2), dtype=complex), "items must be numbers"),
        (torch.zeros(2, 2, dtype=torch.complex64), "must be real numbers"),
        (np.array([[None]]), "items must be numbers, but the data hold object"),
        (np.zeros(3), r"shape \(B, d\) or \(B, C, H, W\), but the data give \(3,\)"),
        (torch.zeros(3), r"give numbers of one dimension the shape \(B, 1\)"),
    ],
)
def test_what_is_no_vector_is_refused_in_one_line(batch, message):
    with pytest.raises(UserError, match=message) as error:
        as_batch(batch)
    assert "\n" not in str(error.value)


def test_a_fourth_part_of_a_user_s_batch_is_no_latent():
    x, label, told = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 1)
    with pytest.raises(UserError, match="a batch must be a tensor"):
        as_batch((x, label, told, x))
    assert as_batch(Batch(x, label, told, latent=x)).latent is x
