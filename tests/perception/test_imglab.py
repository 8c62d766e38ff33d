"""Annotations of dlib's imglab: what is read, what is left out, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from facegpt.errors import LandmarkError
from facegpt.perception import imglab
from facegpt.perception.imglab import read_imglab

HEAD = "<?xml version='1.0' encoding='ISO-8859-1'?>\n<?xml-stylesheet type='text/xsl' href='x.xsl'?>\n"


def box(names: list[str], attributes: str = "", x: str = "") -> str:
    parts = "".join(f"<part name='{n}' x='{x or int(n) + 10}' y='{2 * int(n)}'/>" for n in names)
    return f"<box top='1' left='2' width='3' height='4' {attributes}>{parts}</box>"


ALL = [f"{number:02d}" for number in range(68)]


def write(path: Path, body: str) -> Path:
    path.write_text(f"{HEAD}<dataset><name>Köpfe</name><images>{body}</images></dataset>", "iso-8859-1")
    return path


def test_faces_come_in_order_with_points_at_pixel_centres(tmp_path: Path) -> None:
    body = f"<image file='a.jpg'>{box(ALL)}{box(ALL[::-1])}</image><image file='b/c.jpg'>{box(ALL)}</image>"
    faces = read_imglab(write(tmp_path / "f.xml", body))
    assert [face.image for face in faces] == ["a.jpg", "a.jpg", "b/c.jpg"]
    for face in faces:  # by their names, whatever their order in the file
        assert face.landmarks.shape == (68, 2)
        assert face.landmarks[0].tolist() == [10.5, 0.5] and face.landmarks[67].tolist() == [77.5, 134.5]


def test_boxes_without_the_68_parts_are_left_out(tmp_path: Path) -> None:
    fewer, others, ignored = box(ALL[:67]), box([*ALL[:67], "68"]), box(ALL, 'ignore="1"')
    body = f"<image file='a.jpg'>{box([])}{fewer}{others}{ignored}</image>"
    assert read_imglab(write(tmp_path / "f.xml", body)) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<dataset><images>", "not a readable imglab file"),
        ("<html/>", "its root is <html>"),
        ("", "not a readable imglab file"),
        (
            f"<dataset><image file='a.jpg'>{box(ALL, x='nan')}</image></dataset>",
            "a.jpg is not a finite number",
        ),
        (f"<dataset><image file='a.jpg'>{box(ALL, x='1e99')}</image></dataset>", "not a finite number"),
        (f"<dataset><image file='a.jpg'>{box(ALL, x='one')}</image></dataset>", "could not convert"),
        ("<?xml version='1.0' encoding='no-such'?><dataset/>", "not a readable imglab file"),
        (
            "<!DOCTYPE d [<!ENTITY a 'aaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><dataset>&b;</dataset>",
            "document type",
        ),
        ("<!DOCTYPE d SYSTEM 'file:///etc/passwd'><dataset/>", "document type"),
    ],
)
def test_what_is_not_imglab_or_hostile_is_refused_in_one_sentence(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "f.xml").write_text(text)
    with pytest.raises(LandmarkError, match=says) as error:
        read_imglab(tmp_path / "f.xml")
    assert "f.xml" in str(error.value) and "\n" not in str(error.value)


def test_limits_are_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LandmarkError, match="no such file"):
        read_imglab(tmp_path / "f.xml")
    file = write(tmp_path / "f.xml", f"<image file='a.jpg'>{box(ALL)}{box(ALL)}</image>")
    monkeypatch.setattr(imglab, "MOST_FACES", 1)
    with pytest.raises(LandmarkError, match="more than 1 faces"):
        read_imglab(file)
    monkeypatch.setattr(imglab, "LARGEST_FILE", 100)
    with pytest.raises(LandmarkError, match="100 is the limit"):
        read_imglab(file)
