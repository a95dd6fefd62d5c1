"""The table of methods. Each row names a class and its default options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anysubset.errors import unknown
from anysubset.methods.acn import ACN
from anysubset.methods.blend import Blend
from anysubset.methods.boosting import Boosting
from anysubset.methods.cpm import CPM
from anysubset.methods.demoseg import DeMoSeg
from anysubset.methods.dynamic_sharing import DynamicSharing
from anysubset.methods.ensemble import Ensemble
from anysubset.methods.gcnet import GCNet
from anysubset.methods.gmc import GMC
from anysubset.methods.linear import Linear
from anysubset.methods.m3ae import M3AE
from anysubset.methods.method import Method
from anysubset.methods.mmformer import MMFormer
from anysubset.methods.mmin import MMIN
from anysubset.methods.mult import MulT
from anysubset.methods.nnunet import NNUNet
from anysubset.methods.ogm_ge import OGMGE
from anysubset.methods.rfnet import RFNet
from anysubset.methods.shaspec import ShaSpec
from anysubset.methods.smunet import SMUNet
from anysubset.methods.taught import Taught
from anysubset.methods.uhemis import UHeMIS
from anysubset.methods.uhved import UHVED
from anysubset.tasks.prediction import Prediction
from anysubset.tasks.segmentation import Segmentation
from anysubset.tasks.task import Task

KINDS: dict[type, str] = {Segmentation: "volumes", Prediction: "tables", Task: "any"}

# The paper of Dynamic Sharing and of gradient-guided modality decoupling.
GMD = 'Wang, Luo, Hu and Zhang, "Gradient-guided Modality Decoupling for Missing-Modality Robustness", AAAI 2024'


@dataclass(frozen=True)
class Row:
    """One method of the table.

    method: its class.
    summary: a description in one line.
    gradients: default update rule, from losses to gradients; a name in `UPDATES`.
    options: default options that differ from those of the class.
    sees: scenarios that occur in training by default, as a phrase for tables.
    complete: whether only complete samples are used in training by default.
    models: number of networks that serve all scenarios, as a phrase for tables.
    dedicated: whether every scenario has a model of its own.
    source: citation of the paper; empty for methods without one.
    """

    method: type[Method]
    summary: str
    gradients: str = "mean"
    options: Mapping[str, Any] = field(default_factory=dict)
    sees: str = "every scenario"
    complete: bool = False
    models: str = "one"
    dedicated: bool = False
    source: str = ""

    @property
    def tasks(self) -> str:
        """The kinds of data that the method supports: `volumes`, `tables` or `any`."""
        return ", ".join(KINDS.get(task, task.__name__) for task in self.method.fits)


METHODS: dict[str, Row] = {
    "gmd": Row(DynamicSharing, "Dynamic Sharing, conflicts between cases removed (the paper)", "gmd", source=GMD),
    "sharing": Row(DynamicSharing, "Dynamic Sharing, mean over all cases: GMD without decoupling", source=GMD),
    "dropout": Row(
        DynamicSharing,
        "Dynamic Sharing, one random case per step (modality dropout)",
        source=GMD,
        options={"cases": "random=1"},
        sees="one random scenario per step",
    ),
    "full": Row(
        DynamicSharing,
        "Dynamic Sharing on complete input only, as most multimodal models are trained",
        source=GMD,
        options={"cases": "full"},
        sees="the full scenario",
        complete=True,
    ),
    "ensemble": Row(
        Ensemble,
        'one expert per modality, predictions averaged (the paper\'s "Baseline")',
        source=GMD,
        sees="single modalities",
        models="one per modality",
    ),
    "blend": Row(
        Blend,
        "several methods, by default `sharing` and `ensemble`, trained one after the other; predictions averaged",
        sees="what its parts see",
        models="those of its parts",
    ),
    "taught": Row(
        Taught,
        "Dynamic Sharing that unimodal experts, trained first, teach in every case (distillation, Hinton et al. 2015)",
        source='Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015',
    ),
    "nnunet": Row(
        NNUNet,
        "the modalities are channels of one U-Net, missing ones 0 (Isensee et al. 2021, with modality dropout)",
        source='Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image '
        'segmentation", Nature Methods 2021',
        sees="one random scenario per sample",
    ),
    "uhemis": Row(
        UHeMIS,
        "one encoder per modality, fused by mean and variance at every level (Havaei et al. 2016, Dorent et al. 2019)",
        source='Havaei et al., "HeMIS: Hetero-Modal Image Segmentation", MICCAI 2016; as a U-Net by Dorent et '
        "al., MICCAI 2019",
        sees="one random scenario per sample",
    ),
    "uhved": Row(
        UHVED,
        "one variational encoder per modality, product of Gaussians; also decodes the images (Dorent et al. 2019)",
        source='Dorent et al., "Hetero-Modal Variational Encoder-Decoder for Joint Modality Completion and '
        'Segmentation", MICCAI 2019',
        sees="one random scenario per sample",
    ),
    "rfnet": Row(
        RFNet,
        "one encoder per modality, fused region by region at every level (Ding et al. 2021)",
        source='Ding, Yu and Yang, "RFNet: Region-aware Fusion Network for Incomplete Multi-modal Brain Tumor '
        'Segmentation", ICCV 2021',
        sees="one random scenario per sample",
    ),
    "mmformer": Row(
        MMFormer,
        "transformers within each modality and over the tokens of all present ones (Zhang et al. 2022)",
        source='Zhang et al., "mmFormer: Multimodal Medical Transformer for Incomplete Multimodal Learning of '
        'Brain Tumor Segmentation", MICCAI 2022',
        sees="one random scenario per sample",
    ),
    "demoseg": Row(
        DeMoSeg,
        "nnU-Net in which present modalities provide substitutes for missing ones (Yang et al. 2024)",
        source='Yang et al., "Decoupling Feature Representations of Ego and Other Modalities for Incomplete '
        'Multi-modal Brain Tumor Segmentation", MICCAI 2024',
        sees="one random scenario per sample",
    ),
    "acn": Row(
        ACN,
        "a student for every scenario learns from a teacher, with adversaries (Wang et al. 2021)",
        source='Wang et al., "ACN: Adversarial Co-training Network for Brain Tumor Segmentation with Missing '
        'Modalities", MICCAI 2021',
        sees="one incomplete scenario per step",
        complete=True,
        models="two per incomplete scenario",
        dedicated=True,
    ),
    "smunet": Row(
        SMUNet,
        "a student for every scenario matches a teacher's style and content (Azad et al. 2022)",
        source='Azad, Khosravi and Merhof, "SMU-Net: Style matching U-Net for brain tumor segmentation with '
        'missing modalities", MIDL 2022',
        sees="one incomplete scenario per step",
        complete=True,
        models="two per incomplete scenario",
        dedicated=True,
    ),
    "m3ae": Row(
        M3AE,
        "a masked autoencoder of all modalities, then a segmentation with a learned fill (Liu et al. 2023)",
        source='Liu et al., "M3AE: Multimodal Representation Learning for Brain Tumor Segmentation with Missing '
        'Modalities", AAAI 2023',
        sees="two random scenarios per sample",
    ),
    "ogm_ge": Row(
        OGMGE,
        "one expert per modality, joint loss, smaller gradients for the leading modality (Peng et al. 2022)",
        source='Peng et al., "Balanced Multimodal Learning via On-the-fly Gradient Modulation", CVPR 2022',
        sees="the full scenario",
        complete=True,
        models="one per modality",
    ),
    "shaspec": Row(
        ShaSpec,
        "one encoder for all modalities and one for each, shared features for missing ones (Wang et al. 2023)",
        source='Wang et al., "Multi-modal Learning with Missing Modality via Shared-Specific Feature '
        'Modelling", CVPR 2023',
        sees="one random scenario per sample",
    ),
    "mult": Row(
        MulT,
        "a transformer between all modalities, with zeros in place of a missing one (Tsai et al. 2019)",
        source='Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019',
        sees="the full scenario",
        complete=True,
    ),
    "gmc": Row(
        GMC,
        "contrastive loss between the code of each modality and the joint code of all (Poklukar et al. 2022)",
        source='Poklukar et al., "Geometric Multimodal Contrastive Representation Learning", ICML 2022',
        sees="the full scenario",
        complete=True,
    ),
    "mmin": Row(
        MMIN,
        "a student predicts the features that a teacher has for the missing modalities (Zhao et al. 2021)",
        source='Zhao, Li and Jin, "Missing Modality Imagination Network for Emotion Recognition with Uncertain '
        'Missing Modalities", ACL 2021',
        sees="one random scenario per sample",
    ),
    "gcnet": Row(
        GCNet,
        "graph convolutions over the utterances of a conversation; also reconstructs its input (Lian et al. 2023)",
        source='Lian, Chen, Sun, Liu and Tao, "GCNet: Graph Completion Network for Incomplete Multimodal '
        'Learning in Conversation", IEEE TPAMI 2023',
        sees="one random scenario per sample",
    ),
    "cpm": Row(
        CPM,
        "no encoder: latent vectors are fitted to the present modalities, and separate classes (Zhang et al. 2019)",
        source='Zhang et al., "CPM-Nets: Cross Partial Multi-View Networks", NeurIPS 2019',
        sees="what each sample has",
    ),
    "linear": Row(
        Linear,
        "logistic or ridge regression for each modality, predictions averaged",
        sees="single modalities",
        models="one per modality",
    ),
    "boosting": Row(
        Boosting,
        "gradient boosting of decision trees for each modality, predictions averaged",
        sees="single modalities",
        models="one per modality",
    ),
}


def row_named(name: str) -> Row:
    """The row of a method. Raises InputError for an unknown name."""
    if str(name) not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def methods_for(task: type[Task]) -> list[str]:
    """The names of the methods that can be used for a kind of task."""
    return [name for name, row in METHODS.items() if issubclass(task, row.method.fits)]
