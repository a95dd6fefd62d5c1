"""GMD on a model of your own, without Dynamic Sharing, in float32 or in bfloat16 autocast.

GMD only needs to know which parameters of a model the modalities share. Here every modality has its own encoder, the
features are reduced by their maximum over modalities, and a shared trunk maps them to the output.

The coefficients of a step weight the losses, so the encoders, which are not shared, receive the gradient of the same
weighted sum. Every encoder is differentiated once per step.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset import GMD, all_scenarios, scenario_name

FEATURES = {"blood": 3, "scan": 6}  # Size of the vector of each modality.
Table = dict[int, Tensor]  # Vector by patient, for the patients that have the modality.


class Model(nn.Module):
    """Predict from any non-empty subset of the modalities."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Linear(size, 16) for name, size in FEATURES.items()})
        self.trunk = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 1))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """(n, size) per present modality -> (n,) logits."""
        encoded = [functional.gelu(self.encoders[name](x)) for name, x in inputs.items()]
        return self.trunk(torch.stack(encoded).amax(dim=0)).squeeze(1)


def draw(count: int, generator: torch.Generator, missing: float = 0.0) -> tuple[dict[str, Table], Tensor]:
    """Tables in which the scan is more informative than blood, and (count,): 1 for ill patients, else 0."""
    ill = (torch.rand(count, generator=generator) < 0.5).float()
    tables: dict[str, Table] = {name: {} for name in FEATURES}
    for patient in range(count):
        sign = 2 * ill[patient] - 1
        tables["blood"][patient] = 0.4 * sign + torch.randn(FEATURES["blood"], generator=generator)
        tables["scan"][patient] = 0.7 * sign + torch.randn(FEATURES["scan"], generator=generator)
        if torch.rand((), generator=generator) < missing:
            lost = list(FEATURES)[int(torch.randint(2, (), generator=generator))]
            del tables[lost][patient]  # At most one of the two, so every patient has a modality.
    return tables, ill


def case_losses(
    model: Model, tables: dict[str, Table], ill: Tensor, batch: list[int], bfloat16: bool = False
) -> dict[str, Tensor]:
    """Mean loss of each case over the eligible patients of the batch; a case without any is left out."""
    losses = {}
    for case in all_scenarios(FEATURES):
        eligible = [patient for patient in batch if all(patient in tables[name] for name in case)]
        if eligible:
            inputs = {name: torch.stack([tables[name][patient] for patient in eligible]) for name in case}
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = model(inputs)
            # Losses are computed in float32 and outside autocast, as `gmd.backward` is.
            loss = functional.binary_cross_entropy_with_logits(logits.float(), ill[eligible])
            losses[scenario_name(case)] = loss
    return losses


def main(steps: int = 200, bfloat16: bool = False) -> dict[str, dict[str, float]]:
    """Loss in each scenario on new, complete patients, before and after training."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    tables, ill = draw(512, generator, missing=0.5)
    new, new_ill = draw(512, generator)
    model = Model()
    gmd = GMD(model.trunk.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def losses_on_new() -> dict[str, float]:
        with torch.no_grad():
            return {case: loss.item() for case, loss in case_losses(model, new, new_ill, list(range(512))).items()}

    before = losses_on_new()
    conflicts = 0
    for _ in range(steps):
        batch = torch.randint(512, (32,), generator=generator).tolist()
        optimizer.zero_grad()
        step = gmd.backward(case_losses(model, tables, ill, batch, bfloat16))
        optimizer.step()
        conflicts += any(cosine < 0 for cosine in step.cosines.values())
    after = losses_on_new()
    for case in before:
        print(f"{case:12} {before[case]:.3f} -> {after[case]:.3f}")
    print(f"Cases conflicted in {conflicts} of {steps} steps.")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
