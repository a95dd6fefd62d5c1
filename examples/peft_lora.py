"""GMD with adapters (LoRA, Hu et al. 2021): the transformer stays frozen, and conflict is measured on the adapters.

Text and audio are sequences of tokens that one transformer reads. PEFT freezes the transformer and adds a small
trainable product of two matrices to some of its layers; these adapters are what the modalities share. GMD needs nothing
special: frozen parameters are left out. The small transformer stands for a pretrained one of `transformers`, loaded
from a local folder.
"""

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional

from anysubset import GMD, all_scenarios, scenario_name

MODALITIES = ("text", "audio")
WORDS, WIDTH = 16, 16

# Sequences of token numbers by modality and sample number, and the target of each sample.
Data = tuple[dict[str, dict[int, Tensor]], Tensor]


class Transformer(nn.Module):
    """Reads tokens: (n, length) -> the mean of the outputs, (n, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(WORDS, WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.layers = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, length) -> (n, WIDTH)."""
        x = self.tokens(tokens)
        x = x + functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return (x + self.layers(x)).mean(dim=1)


class Model(nn.Module):
    """The transformer with adapters, and a head."""

    def __init__(self) -> None:
        super().__init__()
        adapters = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value", "layers.1", "layers.3"])
        self.transformer = get_peft_model(Transformer(), adapters)
        self.head = nn.Linear(WIDTH, 1)

    def shared_parameters(self) -> list[nn.Parameter]:
        """The adapters and the head; everything else is frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def draw(count: int, generator: torch.Generator, missing: float = 0.0) -> Data:
    """The target is the share of large tokens; text shows it in 8 tokens, audio in 8 of which a quarter are wrong."""
    target = torch.rand(count, generator=generator)
    data: dict[str, dict[int, Tensor]] = {name: {} for name in MODALITIES}
    for sample, share in enumerate(target.tolist()):
        present = [name for name in MODALITIES if torch.rand((), generator=generator) >= missing] or list(MODALITIES)
        for name in present:
            large = torch.rand(8, generator=generator) < share
            wrong = torch.rand(8, generator=generator) < (0.25 if name == "audio" else 0.0)
            token = torch.randint(WORDS // 2, (8,), generator=generator)
            data[name][sample] = token + (large ^ wrong) * (WORDS // 2)
    return data, target


def case_losses(model: Model, data: Data, batch: list[int]) -> dict[str, Tensor]:
    """Mean squared error of each case over the samples that have its modalities; a case without any has no loss."""
    tokens, target = data
    losses = {}
    for case in all_scenarios(MODALITIES):
        eligible = [sample for sample in batch if all(sample in tokens[name] for name in case)]
        if eligible:
            features = [model.transformer(torch.stack([tokens[name][sample] for sample in eligible])) for name in case]
            output = model.head(torch.stack(features).mean(dim=0))[:, 0]
            losses[scenario_name(case)] = functional.mse_loss(output, target[eligible])
    return losses


@torch.no_grad()
def errors(model: Model, data: Data) -> dict[str, float]:
    """Mean squared error in each scenario, on complete samples."""
    return {case: loss.item() for case, loss in case_losses(model, data, list(range(len(data[1])))).items()}


def main(steps: int = 100) -> dict[str, dict[str, float]]:
    """Error in each scenario on complete samples, before and after training the adapters and the head."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train, test = draw(400, generator, missing=0.4), draw(100, generator)
    model = Model()
    gmd = GMD(model.shared_parameters())
    optimizer = torch.optim.AdamW(model.shared_parameters(), lr=1e-2)
    before = errors(model, test)
    for _ in range(steps):
        batch = torch.randperm(len(train[1]), generator=generator)[:32].tolist()
        optimizer.zero_grad()
        gmd.backward(case_losses(model, train, batch))
        optimizer.step()
    after = errors(model, test)
    for case in before:
        print(f"{case:11} {before[case]:.4f} -> {after[case]:.4f}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
