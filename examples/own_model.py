"""GMD on a model of your own, without Dynamic Sharing, in float32 or in bfloat16 autocast.

All that GMD needs to know of a model is which parameters its modalities share. Here each modality has an encoder, the
largest of what the encoders say is taken feature by feature, and one trunk reads the result: the trunk is shared.

The coefficients of a step act on the whole losses: the encoders, which are not shared, receive the gradient of the same
weighted sum, and each is differentiated once a step.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset import GMD, all_scenarios, scenario_name

FEATURES = {"blood": 3, "scan": 6}  # How many numbers each modality comes with.
Table = dict[int, Tensor]  # The patients that have a modality; who lacks it is not in its table.


class Model(nn.Module):
    """Answers from whatever is there."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Linear(size, 16) for name, size in FEATURES.items()})
        self.trunk = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 1))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """(n, ...) a modality to n logits."""
        encoded = [functional.gelu(self.encoders[name](x)) for name, x in inputs.items()]
        return self.trunk(torch.stack(encoded).amax(dim=0)).squeeze(1)


def draw(count: int, generator: torch.Generator, missing: float = 0.0) -> tuple[dict[str, Table], Tensor]:
    """The scan shows rather clearly who is ill, blood shows it in noise. Also (count,): 1 for who is, else 0."""
    ill = (torch.rand(count, generator=generator) < 0.5).float()
    tables: dict[str, Table] = {name: {} for name in FEATURES}
    for patient in range(count):
        sign = 2 * ill[patient] - 1
        tables["blood"][patient] = 0.4 * sign + torch.randn(FEATURES["blood"], generator=generator)
        tables["scan"][patient] = 0.7 * sign + torch.randn(FEATURES["scan"], generator=generator)
        if torch.rand((), generator=generator) < missing:
            lost = list(FEATURES)[int(torch.randint(2, (), generator=generator))]
            del tables[lost][patient]  # One of the two; a patient without either would be none.
    return tables, ill


def case_losses(
    model: Model, tables: dict[str, Table], ill: Tensor, batch: list[int], bfloat16: bool = False
) -> dict[str, Tensor]:
    """For each case, the loss of the patients of the batch who have all of it; a case that nobody has is left out."""
    losses = {}
    for case in all_scenarios(FEATURES):
        some = [patient for patient in batch if all(patient in tables[name] for name in case)]
        if some:
            inputs = {name: torch.stack([tables[name][patient] for patient in some]) for name in case}
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = model(inputs)
            # In float32, whatever the model ran in; and outside autocast, as `gmd.backward` is.
            losses[scenario_name(case)] = functional.binary_cross_entropy_with_logits(logits.float(), ill[some])
    return losses


def main(steps: int = 200, bfloat16: bool = False) -> dict[str, dict[str, float]]:
    """The loss in each scenario on new, complete patients, before and after."""
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
    print(f"Two cases were in conflict in {conflicts} of {steps} steps.")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
