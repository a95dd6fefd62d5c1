"""U-HVED as a method: its three losses, also where samples lack modalities, its predictions and options."""

from collections.abc import Callable

import torch
from torch.testing import assert_close

from anysubset.batches import Batch, keep
from anysubset.methods.method import Step
from anysubset.methods.uhved import UHVED
from anysubset.models.uhemis import segmentation_loss
from anysubset.models.uhved import latent_loss
from anysubset.scenarios import Scenario
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")
PRESENCE: list[Scenario] = [NAMES, ("t1",), ("t1", "flair"), NAMES]

MakeBatch = Callable[..., Batch]


def make(task: Segmentation, **options: object) -> UHVED:
    """In evaluation mode, so that latents are the means."""
    torch.manual_seed(0)
    return UHVED(task, width=0.25, **options).eval()  # type: ignore[arg-type]


def test_the_loss_of_a_case_by_its_parts(task: Segmentation, make_batch: MakeBatch):
    # Of the samples, 0, 1 and 2 have t1; they have 3, 1 and 2 modalities, which images and divergence take.
    presence: list[Scenario] = [NAMES, ("t1",), ("t1", "flair"), ("t2",)]
    method, batch = make(task, cases="missing=2"), make_batch(presence)
    loss = method.losses(batch, Step(cases=(("t1",),)))["t1"]
    network = method.network
    logits, images, divergences = [], [], []
    for index, scenario in enumerate(presence[:3]):
        volumes = {
            name: batch.inputs[name].values[batch.inputs[name].indices.tolist().index(index)][None] for name in scenario
        }
        levels = {name: network.encode(name, x) for name, x in volumes.items()}
        output = network.decode({"t1": levels["t1"]})
        logits.append(output.logits)
        errors = [(network.reconstruct(name, output.latents) - x).square().mean() for name, x in volumes.items()]
        images.append(torch.stack(errors).mean())
        by_level = [
            latent_loss([levels[name][depth] for name in scenario], output.posterior[depth]) for depth in range(4)
        ]
        divergences.append(torch.stack(by_level).mean())
    segmentation = segmentation_loss(torch.cat(logits), task.class_of(batch.target[:3]))
    expected = segmentation + 0.1 * torch.stack(images).mean() + 0.1 * torch.stack(divergences).mean()
    assert_close(loss, expected)


def test_the_scenario_restricts_the_latents_alone_so_other_encoders_learn_from_the_divergence(
    task: Segmentation, make_batch: MakeBatch
):
    method, batch = make(task, cases="missing=2"), make_batch([NAMES, ("t1", "t2")])
    step = Step(cases=(("t1",),))
    features = method.features(batch, step, whole=False)
    output, indices = method.network.output_of_case(features, ("t1",))
    assert indices.tolist() == [0, 1]

    def reached(loss: torch.Tensor) -> set[str]:
        method.zero_grad()
        loss.backward(retain_graph=True)
        network = method.network
        own = {"encoder": network.encoders, "image": network.images}
        return {
            f"{kind} {name}"
            for kind, modules in own.items()
            for name in NAMES
            if any(parameter.grad is not None for parameter in modules[name].parameters())
        }

    assert reached(method.loss(output, batch.target, step)) == {"encoder t1"}
    assert reached(method.image_loss(output, indices, batch)) == {"encoder t1", *(f"image {name}" for name in NAMES)}
    assert reached(method.divergence_loss(output, indices, features)) == {f"encoder {name}" for name in NAMES}


def test_a_modality_that_no_sample_has_needs_no_image(task: Segmentation, make_batch: MakeBatch):
    method = make(task)
    torch.stack(list(method.losses(make_batch([("t1",), ("t1", "flair")]), Step()).values())).sum().backward()
    assert all(parameter.grad is None for parameter in method.network.images["t2"].parameters())
    assert all(parameter.grad is not None for parameter in method.network.images["t1"].parameters())


@torch.no_grad()
def test_predictions_from_draws_differ_from_one_time_to_the_next(task: Segmentation, make_batch: MakeBatch):
    inputs = make_batch(PRESENCE).inputs
    means, draws = make(task), make(task, sample_at_test=True)
    assert torch.equal(means.predict(inputs), means.predict(inputs))
    assert not torch.equal(draws.predict(inputs), draws.predict(inputs))


@torch.no_grad()
def test_a_region_is_predicted_where_the_likeliest_class_lies_in_it(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task), make_batch([NAMES])
    output = method.network.output_by_sample(method.network.features(batch.inputs), [("t2",)])
    inside = torch.tensor(task.classes)[output.logits.argmax(dim=1)].movedim(-1, 1)
    assert inside.any()
    assert torch.equal(method.predict(keep(batch.inputs, ("t2",))) > 0, inside)


def test_patches_and_modalities_that_the_method_does_not_take_are_refused(fault):
    regions = {"whole": (1,)}
    assert fault(UHVED, Segmentation(("t1",), regions, (8, 8))).endswith("not 8 x 8: enlarge task.patch.")
    many = tuple(f"m{index}" for index in range(9))
    assert fault(UHVED, Segmentation(many, regions, (16, 16))) == (
        "U-HVED sums over all scenarios of a sample, so it takes up to 8 modalities, not 9."
    )
