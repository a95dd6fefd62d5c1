import torch
from hypothesis import given
from hypothesis import strategies as st

from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.temperatures import Temperatures


def test_a_scenario_without_its_own_temperature_has_that_of_all():
    temperatures = Temperatures({"WT": 3.0, "ET": 1.5}, {"t1+flair": {"WT": 2.0, "ET": 1.2}})
    assert temperatures.fitted
    assert temperatures.of(("t1", "flair"), "ET") == 1.2
    assert temperatures.of(("t1",), "ET") == 1.5
    assert not Temperatures().fitted
    assert Temperatures().of(("t1",)) == 1.0


STREAMS = dict.fromkeys(("a", "b"), Stream("vector", 1))


@given(
    st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=2, max_size=2),
    st.floats(0.05, 20),
)
def test_the_order_of_the_classes_never_changes(rows: list[list[float]], temperature: float):
    temperatures = Temperatures({"all": 1.0}, {"a": {"all": temperature}})
    task = Prediction(("a", "b"), STREAMS, classes=("x", "y", "z"), temperatures=temperatures)
    logits = torch.tensor(rows)
    calibrated = task.calibrated(logits, [("a",), ("b",)])
    assert torch.equal(calibrated[1], logits[1])
    for first in range(3):
        for second in range(3):
            if logits[0, first] >= logits[0, second]:  # Rounding may make numbers equal, but never exchanges them.
                assert calibrated[0, first] >= calibrated[0, second]
