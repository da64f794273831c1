"""A trained network, quantised: beside ONNX Runtime's own quantiser, twice the same, told from noise."""

from pathlib import Path

import pytest
from nacre.passes.quantise.calibrate import calibrate
from nacre.passes.quantise.quantise import quantise

pytest.importorskip("onnxruntime")
from nacre.benchmarks import sqnr

DIGITS = Path(sqnr.__file__).parents[1] / "examples" / "digits" / "digits.onnx"


@pytest.fixture(scope="module")
def feeds() -> list[dict]:
    return sqnr.inputs_of(DIGITS, 24, None)  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_digits_beside_onnx_runtime(feeds, dtype: str, tmp_path) -> None:
    known, fresh = feeds[:8], feeds[8:]
    reference, ours = sqnr.onnx_runtime(DIGITS), sqnr.nacre_quantised(DIGITS, known, dtype)
    wanted, found = [reference(f) for f in fresh], [ours(f) for f in fresh]
    peer = sqnr.onnx_runtime_int8(DIGITS, known, tmp_path)
    theirs = sqnr.accuracy(wanted, [peer(f) for f in fresh])
    mine = sqnr.accuracy(wanted, found)
    assert theirs.sqnr > 25 and mine.sqnr > theirs.sqnr - 2
    assert mine.agreement == 1
    assert sqnr.accuracy(wanted, found[1:] + found[:1]).sqnr < 5


def test_the_same_calibration_gives_the_same_text(feeds) -> None:
    texts = []
    for _ in range(2):
        module = sqnr.prepared(DIGITS)
        calibrate(module, feeds[:2])
        quantise(module)
        texts.append(str(module))
    assert texts[0] == texts[1]
    assert "graph.conv" not in texts[0] and texts[0].count("quant.dcast") == 1
