"""The examples train, and their claims hold; those whose package is not installed are skipped."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset import GMD, collate, testing

EXAMPLES = Path(__file__).parents[1] / "examples"

# torch 2.13 deprecates a check that Lightning 2.6 makes for every batch of its validation loop.
lightnings_own = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated")
# Lightning recommends more workers for loading on many cores; 512 samples in memory need none.
no_workers = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def example(name: str, package: str | None = None) -> ModuleType:
    if package:
        pytest.importorskip(package, reason=f"{package} is not installed.")
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_learned(errors: dict[str, dict[str, float]], cases: int) -> None:
    before, after = errors["before"], errors["after"]
    assert len(before) == len(after) == cases
    for case in before:
        assert after[case] < 0.85 * before[case], case


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grads(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters()]


def test_every_example_is_listed_and_tested():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names >= {
        "bare_loop.py",
        "own_model.py",
        "sklearn_front.py",
        "lightning_module.py",
        "fabric_loop.py",
        "accelerate_loop.py",
        "own_method.py",
        "own_network.py",
        "two_towers.py",
        "late_fusion_resnets.py",
        "peft_lora.py",
        "fsdp2_loop.py",
    }
    listed, tested = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    for name in names:
        assert f"[{name}]({name})" in listed
        assert f'example("{name.removesuffix(".py")}"' in tested


# --------------------------------------------------------------------------------------------- bare_loop.py


def test_a_bare_loop_learns_every_scenario():
    assert_learned(example("bare_loop").main(steps=60), cases=7)


def test_the_data_are_incomplete_and_missing_modalities_are_not_filled():
    samples = example("bare_loop").draw(200, seeded(), missing=0.4)
    sizes = [len(inputs) for inputs, _, _ in samples]
    assert {*sizes} == {1, 2, 3}
    assert all(x.all() for inputs, _, _ in samples for x in inputs.values())


def test_the_accumulated_step_equals_the_joint_step():
    loop = example("bare_loop")
    # Samples without text have much lower targets than the others, so the cases conflict.
    samples = [
        ({name: x.double() for name, x in inputs.items()}, target.double() + (5 if "text" in inputs else -5), id_)
        for inputs, target, id_ in loop.draw(33, seeded(), missing=0.6)
    ]
    torch.manual_seed(0)
    model = loop.make_model().double()
    # Of unequal size; the first has no eligible sample for the cases of several modalities.
    samples.sort(key=lambda sample: len(sample[0]))
    parts = [collate(samples[:6]), collate(samples[6:20]), collate(samples[20:])]
    counts = [loop.case_losses(model, part)[1] for part in parts]
    assert 0 in counts[0].values()
    assert len({count for part in counts for count in part.values()}) > 3
    accumulated = loop.fill(model, GMD(model.shared_parameters()), parts)
    from_parts = grads(model)
    model.zero_grad()
    joint = loop.fill(model, GMD(model.shared_parameters()), [collate(samples)])
    assert min(joint.cosines.values()) < 0
    assert accumulated.coefficients == pytest.approx(joint.coefficients)
    assert_close(from_parts, grads(model))


# --------------------------------------------------------------------------------------------- own_model.py


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_a_user_defined_model_learns_every_scenario(bfloat16: bool):
    assert_learned(example("own_model").main(steps=150, bfloat16=bfloat16), cases=3)


def test_the_model_runs_in_bfloat16_with_nearly_the_same_gramian():
    own = example("own_model")
    torch.manual_seed(0)
    model, (tables, ill) = own.Model(), own.draw(64, seeded(), missing=0.5)
    gramians = []
    for bfloat16 in (False, True):
        losses = own.case_losses(model, tables, ill, list(range(64)), bfloat16)
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        gramians.append(GMD(model.trunk.parameters()).backward(losses).gramian)
    assert not gramians[0].equal(gramians[1])
    assert_close(gramians[1], gramians[0], rtol=0.05, atol=1e-3)


def test_encoders_receive_the_gradient_of_the_same_weighted_sum():
    own = example("own_model")
    torch.manual_seed(0)
    model, (tables, ill) = own.Model().double(), own.draw(64, seeded(), missing=0.5)
    tables = {name: {who: x.double() for who, x in table.items()} for name, table in tables.items()}

    def losses() -> dict[str, Tensor]:
        return own.case_losses(model, tables, ill.double(), list(range(64)))

    # The loss of blood alone is maximised here, so the cases conflict.
    step = GMD(model.trunk.parameters()).backward({case: -x if case == "blood" else x for case, x in losses().items()})
    assert max(step.coefficients.values()) > 1
    decoupled = grads(model)
    model.zero_grad()
    weighted = [step.coefficients[case] * (-x if case == "blood" else x) for case, x in losses().items()]
    torch.stack(weighted).mean().backward()
    # In the model the losses are taken in float32.
    assert_close(decoupled, grads(model), rtol=1e-4, atol=1e-7)


# ------------------------------------------------------------------------------------------ sklearn_front.py


def test_the_scikit_learn_example_predicts_in_every_scenario(capsys: pytest.CaptureFixture[str]):
    scores = example("sklearn_front").main(steps=40)
    assert list(scores) == ["blood", "scan", "blood+scan"]
    assert min(scores.values()) > 0.65
    assert scores["blood+scan"] > scores["blood"]
    assert "From a scan alone: " in capsys.readouterr().out


# -------------------------------------------------------------------------------------- lightning_module.py


@lightnings_own
@no_workers
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_lightning_module_learns_every_scenario(precision: str):
    module = example("lightning_module", package="lightning")
    assert_learned(module.main(epochs=5, accelerator="cpu", precision=precision), cases=3)


def test_a_lightning_module_refuses_unsupported_settings():
    module = example("lightning_module", package="lightning")
    for world_size, precision in [(2, "32-true"), (1, "16-mixed")]:
        model = module.Decoupled()
        model._trainer = type("Trainer", (), {"world_size": world_size, "precision": precision})()
        with pytest.raises(ValueError, match="devices=1, and any precision but 16-mixed"):
            model.configure_optimizers()


def test_the_orders_of_projection_are_resumed_from_a_checkpoint():
    module = example("lightning_module", package="lightning")
    model, resumed, checkpoint = module.Decoupled(), module.Decoupled(), {}
    torch.randperm(9, generator=model.generator)
    model.on_save_checkpoint(checkpoint)
    resumed.on_load_checkpoint(checkpoint)
    assert torch.randperm(9, generator=resumed.generator).equal(torch.randperm(9, generator=model.generator))


# ------------------------------------------------------------------------------------------- fabric_loop.py


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_fabric_loop_learns_every_scenario(precision: str):
    loop = example("fabric_loop", package="lightning")
    assert_learned(loop.main(epochs=5, precision=precision, accelerator="cpu"), cases=3)


def test_a_fabric_loop_refuses_fp16():
    loop = example("fabric_loop", package="lightning")
    with pytest.raises(ValueError, match="bf16-mixed or 32-true"):
        loop.main(precision="16-mixed")


# --------------------------------------------------------------------------------------- accelerate_loop.py


@pytest.fixture
def on_cpu() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process."""
    state = pytest.importorskip("accelerate.state", reason="accelerate is not installed.")
    yield
    state.AcceleratorState._reset_state(reset_partial_state=True)
    state.GradientState._reset_state()


@pytest.mark.usefixtures("on_cpu")
def test_an_accelerate_loop_learns_every_scenario_with_any_accumulation():
    from accelerate import Accelerator

    loop = example("accelerate_loop", package="accelerate")
    accumulated = loop.main(epochs=5, accelerator=Accelerator(cpu=True, gradient_accumulation_steps=4))
    assert_learned(accumulated, cases=3)
    # The Fabric loop draws the same batches, and takes the 64 samples of a step at once.
    joint = example("fabric_loop", package="lightning").main(epochs=5, precision="32-true", accelerator="cpu")
    assert accumulated["before"] == joint["before"]
    assert accumulated["after"] == pytest.approx(joint["after"], rel=1e-4)


@pytest.mark.usefixtures("on_cpu")
def test_an_overflow_in_fp16_skips_the_step_and_lowers_the_scale():
    from accelerate import Accelerator

    loop = example("accelerate_loop", package="accelerate")
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    # Accelerate allows fp16 on a GPU only; these are the settings that it would make there.
    accelerator.native_amp, accelerator.state._mixed_precision = True, "fp16"
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    assert_learned(loop.main(epochs=5, accelerator=accelerator), cases=3)
    assert 1 < accelerator.scaler.get_scale() < 2.0**24


TWO_PROCESSES = """
import importlib.util, sys
from accelerate import Accelerator
spec = importlib.util.spec_from_file_location("loop", sys.argv[1])
loop = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loop)
loaded = loop.DataLoader
# Without shuffling, so that both runs see the same samples in a step.
loop.DataLoader = lambda data, shuffle, **options: loaded(data, **options)
loop.main(2, Accelerator(cpu=True, gradient_accumulation_steps=int(sys.argv[2])))
"""


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one(tmp_path: Path):
    example("accelerate_loop", package="accelerate")
    (tmp_path / "run.py").write_text(TWO_PROCESSES)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    # 8 micro-batches per step in one process, 4 in each of two.
    one, two = (
        subprocess.run(
            [sys.executable, *launcher, str(tmp_path / "run.py"), str(EXAMPLES / "accelerate_loop.py"), parts],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for launcher, parts in [([], "8"), (torchrun, "4")]
    )
    assert one.count("->") == 3
    assert two == one


# ------------------------------------------- two_towers.py, late_fusion_resnets.py, peft_lora.py and fsdp2_loop.py


def test_two_towers_learn_to_match_and_to_classify_from_either():
    assert_learned(example("two_towers").main(steps=60), cases=4)


def test_a_sample_without_a_caption_is_in_no_loss_of_captions():
    towers = example("two_towers")
    torch.manual_seed(0)
    model, data = towers.TwoTowers(), towers.draw(20, seeded(), without_caption=0.5)
    captioned = list(data[1])
    assert 1 < len(captioned) < 20
    losses = towers.losses_of(model, data, list(range(20)))
    alone = towers.losses_of(model, data, captioned)
    for name in ("caption", "image+caption", "match"):
        assert_close(losses[name], alone[name])
    assert not torch.equal(losses["image"], alone["image"])
    assert set(towers.losses_of(model, data, captioned[:1])) == {"image"}


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_late_fusion_learns_every_scenario_in_mixed_precision(precision: torch.dtype):
    assert_learned(example("late_fusion_resnets").main(steps=40, precision=precision), cases=3)


def test_micro_batches_of_late_fusion_take_the_same_steps_as_the_whole_batch():
    fusion = example("late_fusion_resnets")
    whole, parts = (fusion.main(steps=3, precision=torch.float32, parts=parts)["after"] for parts in (1, 4))
    assert parts == pytest.approx(whole, rel=1e-4)


def test_adapters_learn_every_scenario_and_the_transformer_stays_frozen():
    lora = example("peft_lora", package="peft")
    assert_learned(lora.main(steps=40), cases=3)
    names = [name for name, parameter in lora.Model().named_parameters() if parameter.requires_grad]
    assert names
    assert all("lora_" in name or name.startswith("head.") for name in names)


@pytest.mark.slow
def test_fsdp2_in_two_processes_takes_the_same_steps_as_one():
    example("fsdp2_loop")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    one, two = (
        subprocess.run(
            [sys.executable, *launcher, str(EXAMPLES / "fsdp2_loop.py")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for launcher in ([], torchrun)
    )
    assert one.count("->") == 3
    assert two == one


# ------------------------------------------------------------------------------ own_method.py and own_network.py


@pytest.fixture
def own_method(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module under its own name, which a run records."""
    module = example("own_method")
    monkeypatch.setitem(sys.modules, "example_own_method", module)
    return module


@pytest.mark.parametrize("gradients", ["mean", "gmd"])
def test_a_user_defined_method_is_fitted_evaluated_and_reported(own_method: ModuleType, gradients: str):
    errors = own_method.main(60, gradients)
    assert len(errors) == 7
    # The target is standard normal, so that the best constant has an error of sqrt(2 / pi) = 0.8 on average.
    assert all(error < 0.7 for error in errors.values()), errors


def test_a_user_defined_method_fulfils_the_contract(own_method: ModuleType):
    subjects = testing.subjects(testing.Row(own_method.Agreement, "agreement"))
    assert set(subjects) == set(testing.toys())
    for check in testing.CHECKS:
        check(subjects["vectors"])
        check(subjects["sequences"])


def test_a_user_defined_network_is_trained_by_gmd(monkeypatch: pytest.MonkeyPatch):
    module = example("own_network")
    monkeypatch.setitem(sys.modules, "example_own_network", module)
    errors = module.main(60)
    assert len(errors) == 7
    assert all(error < 0.7 for error in errors.values()), errors
