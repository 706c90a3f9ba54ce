"""Folders of predictions against folders of annotations: the figures of the official tool, the rules, the refusals."""

import csv
import json
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onemask.errors import InputError, OutputError
from onemask.evaluation.archives import extract_masks
from onemask.evaluation.score import score_folders
from onemask.evaluation.scores import FIGURES, Scores

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "davis-score"

Folders = tuple[Path, Path]
Write = Callable[..., Folders]


def label_map(*objects: tuple[int, int], shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    """Each object a square of 4 pixels: its id and the column where it begins."""
    labels = np.zeros(shape, dtype=np.uint8)
    for object_id, left in objects:
        labels[8:12, left : left + 4] = object_id
    return labels


EMPTY = label_map()
ONE = label_map((1, 4))
TWO = label_map((1, 4), (2, 20))


def indexed(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels.astype(np.uint8)).convert("L")
    image.putpalette(bytes(range(256)) * 3)
    return image


def write_sequence(folder: Path, maps: Sequence[np.ndarray | None]) -> None:
    folder.mkdir(parents=True)
    for number, labels in enumerate(maps):
        if labels is not None:
            indexed(labels).save(folder / f"{number:05d}.png")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write one sequence's predictions and annotations; gives the two folders above it."""

    def write(
        predictions: Sequence[np.ndarray | None], annotations: Sequence[np.ndarray], sequence: str = "bear"
    ) -> Folders:
        folders = tmp_path / "predictions", tmp_path / "annotations"
        for folder, maps in zip(folders, (predictions, annotations), strict=True):
            write_sequence(folder / sequence, maps)
        return folders

    return write


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score_folders(GOLDEN / "predictions", GOLDEN / "DAVIS" / "Annotations" / "480p")


@pytest.fixture(scope="module")
def expected() -> dict:
    return json.loads((GOLDEN / "expected.json").read_text())


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden figures of the official tool are not here")
class TestGolden:
    def test_frames(self, scores, expected):
        ours = {
            sequence: {
                object_id: {measure: values[measure] for measure in "JF"} for object_id, values in objects.items()
            }
            for sequence, objects in scores.to_json()["frames"].items()
        }
        assert ours.keys() == expected["frames"].keys()
        for sequence, objects in expected["frames"].items():
            assert ours[sequence].keys() == objects.keys()
            for object_id, values in objects.items():
                for measure in "JF":
                    assert ours[sequence][object_id][measure] == pytest.approx(values[measure], abs=1e-9, rel=0)

    def test_objects(self, scores, expected):
        ours = {f"{row.sequence}_{row.object_id}": row.figures for row in scores.rows}
        assert ours.keys() == expected["objects"].keys()
        for name, figures in expected["objects"].items():
            assert {key: ours[name][key] for key in figures} == pytest.approx(figures, abs=1e-9, rel=0)

    def test_global(self, scores, expected):
        assert scores.figures == pytest.approx(expected["global"], abs=1e-9, rel=0)


def test_perfect_predictions(write):
    scores = score_folders(*write([TWO] * 5, [TWO] * 5))
    assert [(row.sequence, row.object_id) for row in scores.rows] == [("bear", 1), ("bear", 2)]
    assert scores.figures == dict(zip(FIGURES, (1, 1, 1, 0, 1, 1, 0), strict=True))


def test_a_prediction_worked_by_hand(write):
    # The square of 4x4 is found, then found half (2 columns off: 8 of 24 pixels), then not at all.
    found = [ONE, label_map((1, 6)), EMPTY]
    (row,) = score_folders(*write([EMPTY, *found, EMPTY], [ONE] * 5)).rows
    assert row.frames == ("00001", "00002", "00003")
    assert row.region == (1.0, 8 / 24, 0.0)
    assert row.contour == (1.0, 10 / 16, 0.0)
    assert row.J.mean == pytest.approx((1 + 8 / 24) / 3)
    assert row.J.recall == 1 / 3
    assert row.F.recall == 2 / 3


def test_first_and_last_frame_need_no_prediction(write):
    scores = score_folders(*write([None, ONE, ONE, None], [ONE] * 4))
    assert scores.J_and_F == 1
    assert scores.rows[0].frames == ("00001", "00002")


def test_predictions_between_annotations_are_passed_over(write):
    predictions, annotations = write([ONE, ONE, TWO, ONE, ONE], [ONE] * 5)
    (annotations / "bear" / "00002.png").unlink()
    assert score_folders(predictions, annotations).rows[0].frames == ("00001", "00003")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("what", ["a batch", "a run"])
def test_finished_runs_stand_for_their_masks(write, tmp_path, what, packed):
    predictions, annotations = write([ONE] * 4, [ONE] * 4)
    run = predictions / "bear"
    masks = run.rename(predictions / "moved")
    run.mkdir()
    masks.rename(run / "masks")
    (run / "run.json").write_text("{}")
    indexed(ONE).save(run / "contact-sheet.png")
    given = (predictions, annotations) if what == "a batch" else (run, annotations / "bear")
    if packed:
        given = (Path(shutil.make_archive(str(tmp_path / "results"), "zip", given[0])), given[1])
    scores = score_folders(*given)
    assert scores.J.mean == 1
    assert [row.sequence for row in scores.rows] == ["bear"]


def test_an_object_that_is_in_neither_map_counts_as_found(write):
    (row,) = score_folders(*write([EMPTY] * 4, [ONE, EMPTY, ONE, ONE]), missing="empty").rows
    assert row.region == row.contour == (1.0, 0.0)


def test_a_ghost_costs(write):
    (row,) = score_folders(*write([EMPTY, ONE, EMPTY, EMPTY], [ONE, EMPTY, EMPTY, EMPTY])).rows
    assert row.region == row.contour == (0.0, 1.0)


def test_a_late_object_is_scored_after_its_first_annotation(write):
    late = [ONE, ONE, TWO, TWO, TWO, TWO]
    scores = score_folders(*write([ONE, ONE, ONE, TWO, ONE, ONE], late))
    first, second = scores.rows
    assert first.frames == ("00001", "00002", "00003", "00004")
    assert (second.object_id, second.frames, second.region) == (2, ("00003", "00004"), (1.0, 0.0))


def test_an_object_without_scored_frames_has_no_row(write):
    scores = score_folders(*write([ONE] * 5, [ONE, ONE, ONE, TWO, TWO]))
    assert [row.object_id for row in scores.rows] == [1]


def test_ids_need_not_be_consecutive(write):
    maps = [label_map((7, 4), (200, 20))] * 4
    assert [row.object_id for row in score_folders(*write(maps, maps)).rows] == [7, 200]


@pytest.mark.parametrize("void_in", [0, 1], ids=["predictions", "annotations"])
def test_void_is_background(write, void_in):
    maps = [[ONE] * 4, [ONE] * 4]
    maps[void_in] = [label_map((1, 4), (255, 12))] * 4
    scores = score_folders(*write(*maps))
    assert [(row.object_id, row.region) for row in scores.rows] == [(1, (1.0, 1.0))]


@pytest.mark.parametrize("object_id", [300, 255])
def test_maps_of_16_bits(write, object_id):
    predictions, annotations = write([EMPTY] * 4, [EMPTY] * 4)
    for folder in (predictions, annotations):
        for path in (folder / "bear").iterdir():
            labels = ONE.astype(np.uint16) * object_id
            labels[0] = 65535
            Image.fromarray(labels).save(path)
    (row,) = score_folders(predictions, annotations).rows
    assert (row.object_id, row.region) == (object_id, (1.0, 1.0))


def test_16_bit_predictions_of_indexed_annotations(write):
    predictions, annotations = write([ONE] * 4, [ONE] * 4)
    for path in (predictions / "bear").iterdir():
        Image.fromarray(ONE.astype(np.uint16)).save(path)
    assert score_folders(predictions, annotations).J_and_F == 1


def test_ids_are_one_object_where_a_single_object_is_scored(write):
    annotation = label_map((1, 4), (2, 20), (255, 12))
    prediction = label_map((5, 4), (9, 20))
    scores = score_folders(*write([prediction] * 4, [annotation] * 4), single_object=True)
    assert [(row.object_id, row.region) for row in scores.rows] == [(1, (1.0, 1.0))]


def test_black_and_white_masks_are_a_single_object(write):
    predictions, annotations = write([ONE] * 4, [ONE] * 4)
    for number, path in enumerate(sorted((predictions / "bear").iterdir())):
        Image.fromarray(ONE * 255).convert("L" if number % 2 else "1").save(path)
    assert score_folders(predictions, annotations, single_object=True).J_and_F == 1


@pytest.mark.parametrize("kind", ["palette", "16 bit"])
def test_black_and_white_in_any_kind_of_file(write, kind):
    predictions, annotations = write([ONE * 255] * 4, [ONE] * 4)
    for path in (predictions / "bear").iterdir():
        if kind == "16 bit":
            Image.fromarray(ONE.astype(np.uint16) * 65535).save(path)
    assert score_folders(predictions, annotations, single_object=True).J_and_F == 1
    assert score_folders(predictions, annotations).J_and_F == 1
    assert score_folders(annotations, predictions).J_and_F == 1


def test_soft_predictions_are_cut_at_a_threshold(write):
    predictions, annotations = write([ONE] * 4, [ONE] * 4)
    for path in (predictions / "bear").iterdir():
        soft = Image.fromarray(ONE * 200).resize((120, 80), Image.Resampling.BICUBIC).resize((30, 20))
        soft.save(path)
    with pytest.raises(InputError, match=r"00001.png: a mask with hard edges was expected.*--threshold"):
        score_folders(predictions, annotations)
    assert score_folders(predictions, annotations, threshold=100).J_and_F == 1


def test_a_zip_as_results_are_published(write, tmp_path):
    predictions, annotations = write([ONE * 255] * 4, [ONE] * 4)
    archive = tmp_path / "results.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__MACOSX/method/480p/bear/._00001.png", b"not a picture")
        file.writestr("method/480p/.DS_Store", b"")
        for path in (predictions / "bear").iterdir():
            file.write(path, f"method/480p/bear/{path.name}")
    assert score_folders(archive, annotations) == score_folders(predictions, annotations)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("method/480p/bear/00002.png", b"not a picture")  # the later entry is the one that counts
    with pytest.raises(InputError, match=r"results.zip/method/480p/bear/00002.png: a picture was expected"):
        score_folders(archive, annotations)


@pytest.mark.parametrize("macos", [False, True])
@pytest.mark.parametrize("kind", ["palette", "palette of 0 and 255", "grey", "black and white", "one bit"])
def test_published_results_of_every_kind_score_alike(write, tmp_path, kind, macos):
    """As folders and as ZIPs, with what macOS adds to both."""
    moved = np.roll(ONE, 1, axis=1)
    predictions, annotations = write([moved] * 4, [ONE] * 4)
    expected = score_folders(predictions, annotations)
    assert 0.5 < expected.J_and_F < 1
    values = moved * 255 if "255" in kind or "white" in kind else moved
    image = indexed(values) if "palette" in kind else Image.fromarray(values > 0 if kind == "one bit" else values)
    published = tmp_path / "method" / "480p" / "bear"
    published.mkdir(parents=True)
    for number in range(4):
        image.save(published / f"{number:05d}.png")
    if macos:
        beside = tmp_path / "method" / "__MACOSX" / "480p" / "bear"
        beside.mkdir(parents=True)
        for path in (beside / "._00001.png", published / "._00001.png", tmp_path / "method" / ".DS_Store"):
            path.write_bytes(b"not a picture")
    archive = shutil.make_archive(str(tmp_path / "results"), "zip", tmp_path / "method")
    for given in (archive, tmp_path / "method", tmp_path / "method" / "480p", published):
        assert score_folders(given, annotations).rows == expected.rows


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["../bear/00001.png"], r"results.zip names '../bear/00001.png'; expected a name that stays inside"),
        (["read.me"], "holds no PNG"),
        ([""], "holds no PNG"),
        (None, r"cannot be read as a ZIP \(File is not a zip file\)"),
    ],
)
def test_a_zip_that_cannot_be_scored(write, tmp_path, names, said):
    _, annotations = write([ONE] * 4, [ONE] * 4)
    archive = tmp_path / "results.zip"
    if names is None:
        archive.write_bytes(b"PK nothing")
    else:
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                entry = zipfile.ZipInfo("x")
                entry.filename = name  # no name, too, which the constructor does not take
                file.writestr(entry, b"")
    with pytest.raises(InputError, match=said):
        score_folders(archive, annotations)


@pytest.mark.parametrize("packed", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_is_refused_however_it_is_compressed(write, tmp_path, packed):
    predictions, annotations = write([ONE] * 4, [ONE] * 4)
    archive = tmp_path / "results.zip"
    with zipfile.ZipFile(archive, "w", packed) as file:
        for path in (predictions / "bear").iterdir():
            file.write(path, f"bear/{path.name}")
        begin = file.getinfo("bear/00001.png").header_offset + 30 + len("bear/00001.png")  # of what is compressed
    content = bytearray(archive.read_bytes())
    content[begin + 10 : begin + 30] = b"\xff" * 20
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"results\.zip should be .* cannot be read as a ZIP \("):
        score_folders(archive, annotations)


def test_a_zip_is_extracted_in_blocks(tmp_path):
    with zipfile.ZipFile(tmp_path / "results.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bear/00001.png", bytes(50_000_000))
    tracemalloc.start()
    extract_masks(tmp_path / "results.zip", tmp_path / "masks")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000_000
    assert (tmp_path / "masks/bear/00001.png").stat().st_size == 50_000_000


def test_a_folder_that_a_zip_cannot_be_extracted_to(tmp_path):
    with zipfile.ZipFile(tmp_path / "results.zip", "w") as file:
        file.writestr("bear/00001.png", b"content")
    (tmp_path / "masks").write_text("")
    with pytest.raises(OutputError, match=r"00001\.png could not be written: .*masks is a file"):
        extract_masks(tmp_path / "results.zip", tmp_path / "masks")


def test_numbers_without_zeros_and_suffixes_in_capitals(write):
    """Frame 10 comes last, so it is the one that is not scored, and frame 2 is."""
    predictions, annotations = write([ONE] * 11, [ONE] * 11)
    for folder in (predictions, annotations):
        for path in (folder / "bear").iterdir():
            path.rename(path.with_name(f"{int(path.stem)}.PNG"))
    (row,) = score_folders(predictions, annotations).rows
    assert row.frames == tuple(map(str, range(1, 10)))


def test_missing_frames_may_count_as_empty(write):
    (row,) = score_folders(*write([ONE, None, ONE, None], [ONE] * 4), missing="empty").rows
    assert row.region == row.contour == (0.0, 1.0)


def test_one_sequence_without_a_folder_above(write):
    predictions, annotations = write([ONE] * 4, [ONE] * 4)
    (row,) = score_folders(predictions / "bear", annotations / "bear").rows
    assert row.sequence == "bear"
    assert score_folders(predictions / "bear", annotations).rows == (row,)
    (predictions / "bear").rename(predictions / "output")
    assert score_folders(predictions / "output", annotations / "bear").rows == (row,)


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for folder in ("predictions", "annotations"):
        write_sequence(tmp_path / folder, [])
        for number in (8, 9, 10, 11):
            indexed(ONE).save(tmp_path / folder / f"{number}.png")
    assert score_folders(tmp_path / "predictions", tmp_path / "annotations").rows[0].frames == ("9", "10")


def test_sequences_in_the_order_that_was_asked_for(write):
    for name in ("bear", "camel", "dog"):
        predictions, annotations = write([ONE] * 4, [ONE] * 4, name)
    names = [row.sequence for row in score_folders(predictions, annotations).rows]
    assert names == ["bear", "camel", "dog"]
    some = score_folders(predictions, annotations, sequences=["dog", "bear"])
    assert [row.sequence for row in some.rows] == ["dog", "bear"]


def test_global_figures_are_means_over_objects(write):
    write([ONE] * 4, [ONE] * 4)
    folders = write([EMPTY] * 4, [TWO] * 4, "camel")
    scores = score_folders(*folders, missing="empty")
    assert scores.J.mean == scores.F.recall == scores.J_and_F == pytest.approx(1 / 3)


def test_json_holds_rows_global_and_frames(write):
    said = score_folders(*write([ONE, ONE, EMPTY, ONE], [ONE] * 4)).to_json()
    assert json.loads(json.dumps(said)) == said
    assert said["frames"] == {"bear": {"1": {"names": ["00001", "00002"], "J": [1.0, 0.0], "F": [1.0, 0.0]}}}
    figures = dict(zip(FIGURES, (0.5, 0.5, 0.5, 1.0, 0.5, 0.5, 1.0), strict=True))
    assert said["global"] == figures
    assert said["rows"] == [{"sequence": "bear", "object": 1, **figures}]


def test_csv_has_a_line_an_object(write, tmp_path):
    scores = score_folders(*write([ONE] * 4, [TWO] * 4))
    scores.write_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["sequence"], line["object"]) for line in lines] == [("bear", "1"), ("bear", "2")]
    assert [{key: float(line[key]) for key in FIGURES} for line in lines] == [row.figures for row in scores.rows]


def test_table_is_aligned(write):
    assert score_folders(*write([ONE] * 4, [TWO] * 4)).table().splitlines() == [
        "sequence  object  J&F-Mean  J-Mean  J-Recall  J-Decay  F-Mean  F-Recall  F-Decay",
        "bear           1     100.0   100.0     100.0      0.0   100.0     100.0      0.0",
        "bear           2       0.0     0.0       0.0      0.0     0.0       0.0      0.0",
        "global                50.0    50.0      50.0      0.0    50.0      50.0      0.0",
    ]


class TestRefusals:
    """Each names the file, says what was expected and what came, and what to do."""

    def refused(self, folders: Folders, words: str, **options) -> None:
        with pytest.raises(InputError, match=words):
            score_folders(*folders, **options)

    def test_missing_frames(self, write):
        self.refused(
            write([None, None, ONE, None, ONE], [ONE] * 5),
            r"predictions/bear/00001\.png should be the prediction for .*annotations/bear/00001\.png, but is missing "
            r"\(2 of 3 scored frames are\); predict it, or count missing frames as empty with --missing empty$",
        )

    def test_wrong_size(self, write):
        self.refused(
            write([ONE, label_map(shape=(30, 20)), ONE, ONE], [ONE] * 4),
            r"predictions/bear/00001\.png should be 30x20 like its annotation, but is 20x30; predict at",
        )

    def test_ids_that_no_annotation_has(self, write):
        self.refused(
            write([ONE, ONE, label_map((3, 2), (4, 9)), ONE], [TWO] * 4),
            r"predictions/bear/00002\.png should have no ids but those of its sequence's annotations, 1, 2, "
            r"but has 3, 4; write the annotations' ids",
        )

    def test_missing_sequence(self, write):
        predictions, annotations = write([ONE] * 4, [ONE] * 4)
        for name in ("camel", "dog"):
            write_sequence(annotations / name, [ONE] * 4)
        words = (
            r"predictions/camel should hold the label maps of a sequence to score, but there are none "
            r"\(2 of 3 sequences are missing: camel, dog\); add them, or name the sequences to score"
        )
        self.refused((predictions, annotations), words)
        self.refused((predictions, annotations), words, missing="empty")

    def test_sequence_that_is_not_annotated(self, write):
        self.refused(write([ONE] * 4, [ONE] * 4), r"annotations/cow should hold the label maps", sequences=["cow"])

    def test_no_common_sequences(self, tmp_path):
        folders = tmp_path / "predictions", tmp_path / "annotations"
        for folder, names in zip(folders, ("ab", "cdefghi"), strict=True):
            for name in names:
                write_sequence(folder / name, [ONE] * 4)
        self.refused(
            folders,
            r"should have sequences in common, but .*predictions holds a, b and .*annotations holds "
            r"c, d, e, f, g and 2 more; give the two folders",
        )

    def test_no_sequences_asked_for(self, write):
        self.refused(write([ONE] * 4, [ONE] * 4), r"no sequence is given; name at least one", sequences=[])

    def test_no_maps(self, write, tmp_path):
        predictions, _ = write([ONE] * 4, [ONE] * 4)
        self.refused(
            (predictions, tmp_path / "none"),
            r"annotations should be a folder of label maps or a ZIP of one, but there is no .*none; check the path",
        )
        (tmp_path / "hollow").mkdir()
        self.refused(
            (tmp_path / "hollow", predictions),
            r"predictions should be SEQUENCE/FRAME\.png, but neither .*hollow nor a folder in it holds a PNG",
        )

    @pytest.mark.parametrize("content", [b"", b"not a picture", None], ids=["empty", "text", "cut off"])
    def test_unreadable_maps(self, write, content):
        predictions, annotations = write([ONE] * 4, [ONE] * 4)
        path = predictions / "bear" / "00002.png"
        path.write_bytes(path.read_bytes()[:-60] if content is None else content)
        self.refused(
            (predictions, annotations), r"bear/00002\.png: (a picture was expected|the picture is damaged).*; save"
        )

    def test_colours(self, write):
        predictions, annotations = write([ONE] * 4, [ONE] * 4)
        Image.fromarray(ONE[..., None] * np.array([250, 10, 10], np.uint8)).save(predictions / "bear" / "00001.png")
        self.refused(
            (predictions, annotations), r"bear/00001\.png: objects are told apart by colours, .*; save the ids"
        )
        assert score_folders(predictions, annotations, single_object=True).J_and_F == 1

    def test_black_and_white_masks_among_ids(self, write):
        self.refused(
            write([ONE, ONE * 255, ONE, ONE], [ONE] * 4),
            r"bear/00001\.png should hold object ids, but holds only 0 and void; write the "
            r"annotations' ids, or score such masks as a single object",
        )

    def test_black_and_white_masks_of_several_objects(self, write):
        self.refused(
            write([ONE * 255] * 4, [TWO] * 4), r"is black and white, .* hold one object, but the annotations have 1, 2"
        )

    def test_predictions_without_any_object(self, write):
        """They are none: a score of zero would say that they are wrong."""
        folders = write([EMPTY] * 4, [ONE] * 4)
        self.refused(
            folders, r"predictions/bear should hold predictions, but no mask in it has any object; .*--missing"
        )
        indexed(ONE).save(folders[0] / "bear" / "00000.png")  # given, and lost in the next frame
        assert score_folders(*folders).J.mean == 0

    def test_too_few_frames(self, write):
        self.refused(
            write([ONE] * 2, [ONE] * 2),
            r"annotations/bear should have at least three annotated frames, .* but has 2; leave the sequence out",
        )

    def test_nothing_to_score(self, write):
        self.refused(
            write([EMPTY] * 4, [EMPTY, EMPTY, ONE, ONE]),
            r"annotations/bear should have an object before its last two frames, but has none to score; leave",
        )

    def test_options(self, write):
        folders = write([ONE] * 4, [ONE] * 4)
        self.refused(folders, r"missing should be 'error' or 'empty', but is 'skip'", missing="skip")
