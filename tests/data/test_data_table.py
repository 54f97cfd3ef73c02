from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.data import DataError, load_table
from minillm.data.table import looks_like_table


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode())
        return path

    return write


IRIS = "length,width,species\n5.1,3.5,setosa\n7.0,3.2,versicolor\n"


def test_words_as_targets(write):
    features, targets, columns = load_table(write(IRIS), target="species")
    assert features.dtype == np.float32 and columns == ["length", "width"]
    np.testing.assert_array_equal(features, np.float32([[5.1, 3.5], [7.0, 3.2]]))
    assert targets.tolist() == ["setosa", "versicolor"]


@pytest.mark.parametrize("target, kept", [(0, ["b", "c"]), (-1, ["a", "b"]), ("b", ["a", "c"])])
def test_target_by_position_or_name(write, target, kept):
    table = load_table(write("a,b,c\n1,2,3\n4,5,6\n"), target)
    assert table.columns == kept
    assert table.targets.dtype == np.int64


@pytest.mark.parametrize("cells, dtype", [("1 -2 3.0", np.int64), ("1 2.5 3", np.float32), ("1 1e20 3", np.float32)])
def test_type_of_the_targets(write, cells, dtype):
    targets = load_table(write("\n".join(f"0,{cell}" for cell in cells.split())), target=1).targets
    assert targets.dtype == dtype
    np.testing.assert_array_equal(targets, np.array(cells.split(), np.float64).astype(dtype))


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends(write, delimiter, end):
    text = end.join(["", f"a{delimiter}b", f"1{delimiter}2", "", f'"3"{delimiter} 4 ', ""])
    for given_delimiter in (None, delimiter):
        features, targets, columns = load_table(write(text), delimiter=given_delimiter)
        assert features.tolist() == [[1, 2], [3, 4]] and targets is None and columns == ["a", "b"]


def test_header(write):
    assert load_table(write("1,2\n3,4\n")).columns == ["column 0", "column 1"]
    assert load_table(write("1,2\n3,4\n"), header=True).columns == ["1", "2"]
    assert load_table(write("1,2\n3,4\n"), header=False).features.shape == (2, 2)
    with pytest.raises(DataError, match="header='maybe'"):
        load_table(write("1,2\n"), header="maybe")


@given(st.lists(st.tuples(*3 * [st.floats(width=32, allow_nan=False, allow_infinity=False)]), min_size=1, max_size=5))
def test_every_float32_comes_back(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "floats.csv"
    path.write_text("\n".join(",".join(map(repr, row)) for row in rows))
    np.testing.assert_array_equal(load_table(path).features, np.float32(rows))


MALFORMED = {
    "short row": ("a,b,c\n1,2,3\n4,5\n", {}, r"line 3: 2 columns, expected 3.*column 'c' is missing"),
    "long row": ("1,2\n3,4,5\n", {}, "line 2: 3 columns, expected 2"),
    "word": ("a,b\n1,2\n3,four\n", {}, "line 3, column 'b': 'four'"),
    "word after blank lines": ("a,b\n\n\n1,x\n", {}, "line 4, column 'b': 'x'"),
    "word after a cell of two lines": ('a,"b\nb"\n1,x\n', {}, r"line 3, column 'b\\nb': 'x'"),
    "empty cell": ("1,2\n3,\n", {}, "line 2, column 'column 1': an empty cell"),
    "empty target": ("1,2\n3,\n", {"target": 1}, "line 2, column 'column 1': empty, expected a target"),
    "nan": ("1,2\nnan,4\n", {}, "line 2, column 'column 0': 'nan'"),
    "infinity": ("1,2\n3,inf\n", {}, "line 2, column 'column 1': 'inf'"),
    "beyond float32": ("1,2\n3,1e39\n", {}, "line 2, column 'column 1': '1e39'"),
    "underscore": ("1,2\n3,1_000\n", {}, "line 2, column 'column 1': '1_000'"),
    "words as features": (IRIS, {}, "line 2, column 'species': 'setosa'"),
    "unknown target": (IRIS, {"target": "specie"}, r"'specie' is not a column .*'length', 'width', 'species'"),
    "target out of range": (IRIS, {"target": 3}, "target=3 is not a column .*0 to 2"),
    "target twice": ("a,a\n1,2\n", {"target": "a"}, "names more than one column"),
    "target alone": ("1\n2\n", {"target": 0}, "target column alone"),
    "header alone": ("a,b\n", {}, "header and no rows"),
    "blank": ("\n \n", {}, "blank lines only"),
    "empty": ("", {}, "is empty"),
    "open quote": ('a,b\n1,"2\n', {}, "line 2: unexpected end of data"),
    "quote in a cell": ('1,2\n"3"3,4\n', {}, "line 2: .*expected after"),
    "huge cell": ("1,2\n" + "3" * 200_000 + ",4\n", {}, "line 2: field larger"),
    "long delimiter": ("1,2\n", {"delimiter": "::"}, "delimiter='::'"),
    "no delimiter": ("1,2\n", {"delimiter": ""}, "delimiter=''"),
    "newline as delimiter": ("1,2\n", {"delimiter": "\n"}, r"delimiter='\\n'"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_tables(write, name):
    text, options, message = MALFORMED[name]
    with pytest.raises(DataError, match=message):
        load_table(write(text), **options)


def test_not_a_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(DataError, match=r"is a folder|cannot be opened"):
            load_table(path)


@pytest.mark.parametrize(
    "text, answer",
    [
        (IRIS, True),
        ("1;2\n3;4\n", True),
        ("one,two\nthree,four\n", False),
        ("1\n2\n", False),
        ("Once, there was\na king, who had\n", False),
        ("1,2\n3\n", False),
        ("", False),
        ("only, one line", False),
    ],
)
def test_what_looks_like_a_table(text, answer):
    assert looks_like_table(text) is answer
