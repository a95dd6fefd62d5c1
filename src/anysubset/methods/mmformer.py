"""mmFormer: a transformer within each modality, and one over the tokens of all present modalities.

Zhang et al., "mmFormer: Multimodal Medical Transformer for Incomplete Multimodal Learning of Brain Tumor Segmentation",
MICCAI 2022.

Beside the fused output, every encoder is trained by a loss of its own, through a decoder that all modalities share and
that sees the features of the convolutions alone. Under `gradients: gmd` the cases can conflict on the transformer over
all modalities, the fusion of every level and the decoder; encoders, positions and the transformers within a modality
are private. Differences from the published program:

- The tokens of all modalities are joined place by place. The program's reshaping joins tokens of one modality from
  several places (`scrambled_tokens: true`).
- The tokens of a missing modality are left out of the attention. The program sets them to 0, adds their position, and
  attends to them (`mask_keys: false`).
- The positions fit the training patch, whatever its size, and are interpolated for inputs of other sizes. The program
  is for 128^3 alone.
- The width of the fusion depends on the number of modalities, that of the program on the number of classes.
- Four convolutions that the program creates and never uses are left out.
- A missing modality has no loss of its own. In the program its encoder gets its volume all the same.
"""

from torch import Tensor

from anysubset.methods.separate import SeparateMethod
from anysubset.models.mmformer import CHANNELS, MMFormerNetwork
from anysubset.models.network import Tree
from anysubset.tasks.segmentation import Segmentation


class MMFormer(SeparateMethod):
    """Trains the network of mmFormer on mutually exclusive classes.

    Args:
        task: modalities, regions, patch and loss of the data set.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`), or `sample` or `sample=size` to draw
            one for each sample; `CaseMethod` explains them.
        scrambled_tokens: whether the tokens of all modalities are joined as in the published program.
        mask_keys: whether the tokens of missing modalities are left out of the attention.
        dropout: of attention weights, of the inner layers and of the residual branches of the transformers.
        levels: number of resolutions, from 2 to 5; 5 as published, fewer for small patches.
        width: factor of the numbers of channels and of the features of a token, a multiple of 0.125; 1 as published.

    Raises:
        InputError: if the levels do not allow the patch, or an option is out of range.
    """

    network: MMFormerNetwork

    def __init__(
        self,
        task: Segmentation,
        *,
        cases: str = "sample",
        scrambled_tokens: bool = False,
        mask_keys: bool = True,
        dropout: float = 0.1,
        levels: int = len(CHANNELS),
        width: float = 1.0,
    ) -> None:
        network = MMFormerNetwork(
            task.modalities,
            task.patch,
            len(task.classes),
            levels,
            width,
            dropout,
            scrambled_tokens=scrambled_tokens,
            mask_keys=mask_keys,
        )
        super().__init__(task, network, cases=cases)

    def separate(self, features: Tree) -> Tensor:
        """Logits (n, classes, ...) from the convolutional features of a single modality."""
        logits: Tensor = self.network.separate(features.levels)
        return logits
