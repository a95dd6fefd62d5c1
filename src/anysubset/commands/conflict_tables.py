"""Tables of `diagnose`: gradients by case, their cosines, and the log of training."""

from collections.abc import Mapping
from typing import Any

from anysubset.commands.terminal import say, say_table

MAX_CASES = 15  # So many columns of cosines fit into 80 characters.


def show_diagnosis(result: Mapping[str, Any], title: str) -> None:
    """Print the result of `diagnose`: norms and coefficients by case, cosines, conflicting pairs, log of training."""
    now, training = result["now"], result["training"]
    cases = sorted(now["cases"], key=lambda name: name.count("+"))
    order = [now["cases"].index(name) for name in cases]
    say()
    say(f"Gradients of the weights of step {result['step']}; {title}")
    columns = ["trained", "1st third", "2nd", "3rd"] if training else []
    rows = []
    thirds = [third["coefficients"] for third in training["thirds"]] if training else []
    for number, name in enumerate(cases, start=1):
        coefficients = [logged.get(name) for logged in ([training["coefficients"], *thirds] if training else [])]
        cells = ["" if value is None else f"{value:.2f}" for value in (now["coefficients"][name], *coefficients)]
        rows.append([str(number), name, f"{now['norms'][name] or 0:.3g}", *cells])
    say_table(["", "case", "norm", "coefficient", *columns], rows)
    if len(cases) <= MAX_CASES:
        say("Cosines between the gradients of cases, eq. (5); cases with a negative cosine conflict")
        rows = []
        for number, row in enumerate(order, start=1):
            values = [now["cosines"][row][column] for column in order]
            cells = ["" if value is None else f"{value:.2f}".replace("0.", ".") for value in values]
            cells[number - 1] = "1"
            rows.append([str(number), *cells])
        say_table(["", *map(str, range(1, len(cases) + 1))], rows)
    if now["conflicting"] is not None:
        say(f"{100 * now['conflicting']:.1f} % of the pairs of cases conflict, the mean over batches")
    worst = [pair for pair in now["pairs"] if pair["conflicting"] > 0][:5]
    for pair in worst:
        first, second = pair["cases"]
        share = f"in conflict in {100 * pair['conflicting']:.0f} % of the batches"
        say(f"  {first} | {second}: cosine {pair['cosine']:.2f}, {share}")
    say(noise_in_words(result["noise"]))
    if training and training["conflicting"] is not None:
        shares = [third["conflicting"] for third in training["thirds"]]
        shares_text = ", ".join("-" if share is None else f"{100 * share:.1f}" for share in shares)
        say(f"Conflicting pairs in the first, middle and last third of training: {shares_text} %")
    elif not training:
        say("Training logged no conflict: only `gmd` computes it. With method.rule none, `gmd` trains like `sharing`.")
    if result["learning"]:
        say("Relative decrease of the loss of each single modality, in % of its initial loss")
        say_table(
            ["modality", "after 1/3", "after 2/3", "at the end"],
            [
                [name, *("" if value is None else f"{100 * value:.0f}" for value in values)]
                for name, values in result["learning"].items()
            ],
        )


def noise_in_words(noise: Mapping[str, Any] | None) -> str:
    """Whether conflict exceeds noise, and what follows for decoupling.

    noise: as in `diagnosis.json`; None if it could not be measured.
    """
    if noise is None:
        return "Noise: not measured, which takes four batches or more, from a split that is larger than two of them"
    shares = (
        f"Between independent batches {100 * noise['different']:.1f} % of the pairs of different cases conflict, and "
        f"{100 * noise['same']:.1f} % of the cases with themselves, which is noise ({noise['pairs']} pairs of batches)"
    )
    if noise["clear"]:
        return f"{shares}: the excess is clear, so decoupling can be expected to matter"
    return f"{shares}: no clear excess, so decoupling can be expected to change little"
