"""MulT with zero fill: a transformer between all modalities, in which zeros replace a missing one.

Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019.

MulT needs every modality and, as published, is trained on complete samples only. A missing modality is zeros at the
input, inside the network: on as many valid steps as the first present sequence has. This rule is not of the paper, but
how MulT is used in comparisons on missing modalities. Differences from the published program:

- The last valid step of each modality is read. The program reads the last step of the tensor, even if it is padding
  (`readout: last_slot`).
- The data say which steps are padding, and padding is neither counted nor attended to. The program takes a step as
  padding if its first feature is 0 after the projection, and attends to it all the same (`pad_by_zero: true`).
- A vector is a sequence of one step. The paper has sequences only.

The causal mask is that of the paper, although it hides most of the other modality from early steps (`causal: false`).
Under `gradients: gmd` the cases can conflict on all parameters except the projections of the inputs.
"""

from anysubset.errors import InputError, unknown
from anysubset.methods.cases import CaseMethod
from anysubset.models.mult import LAYERS, READOUTS, MulTNetwork
from anysubset.tasks.prediction import Prediction, check_streams


class MulT(CaseMethod):
    """Trains the network of MulT by the loss of the task.

    Args:
        task: modalities, loss and prediction of the data set; every modality must be a sequence or a vector.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`), or `sample` or `sample=size` to draw
            one for each sample; `CaseMethod` explains them.
        layers: number of layers of each transformer, at least 1.
        causal: whether a step attends to no later step, as published.
        readout: which step of each modality the head gets: `last_valid`, or `last_slot`, as in the published program.
        pad_by_zero: whether padding is recognised by zeros, as in the published program.

    Raises:
        InputError: if an option is out of range, or the task has one modality only, or images or token ids.
    """

    fits = (Prediction,)
    takes_weights = True
    takes_several_targets = True
    network: MulTNetwork

    def __init__(
        self,
        task: Prediction,
        *,
        cases: str = "full",
        layers: int = LAYERS,
        causal: bool = True,
        readout: str = "last_valid",
        pad_by_zero: bool = False,
    ) -> None:
        if layers < 1:
            raise InputError(f"method.layers must be at least 1, not {layers}.")
        if readout not in READOUTS:
            raise unknown("method.readout", readout, READOUTS)
        if len(task.modalities) < 2:
            raise InputError("MulT relates modalities to each other, so it needs two or more; these data have one.")
        check_streams(task, "MulT", ("sequence", "vector"))
        network = MulTNetwork(
            {modality: task.streams[modality].size for modality in task.modalities},
            task.outputs,
            vectors=[modality for modality in task.modalities if task.streams[modality].kind == "vector"],
            layers=layers,
            causal=causal,
            readout=readout,
            pad_by_zero=pad_by_zero,
        )
        super().__init__(task, network, cases=cases)
