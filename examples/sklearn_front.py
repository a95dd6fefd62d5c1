"""GMD through scikit-learn's interface: fit, predict, a grid search, and a score for each scenario.

Blood and scan are groups of columns in one table. Some samples have no blood in it, some no scan: NaN in all columns of
the group says so, and nothing is filled in.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV, train_test_split

from anysubset import AnySubsetClassifier

GROUPS = {"blood": slice(0, 5), "scan": slice(5, 17)}


def draw(count: int, generator: np.random.Generator, missing: float) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """(count, 17) measurements, and who is `ill` or `well`; a share lacks either blood or scan."""
    ill = generator.random(count) < 0.5
    table = generator.normal(size=(count, 17)) + np.where(ill, 0.4, -0.4)[:, None]
    lost = generator.choice(["blood", "scan"], size=count)
    for name, columns in GROUPS.items():
        table[(generator.random(count) < missing) & (lost == name), columns] = np.nan
    return table, np.where(ill, "ill", "well")


def main(steps: int = 200) -> dict[str, float]:
    """The accuracy in each scenario on new samples."""
    table, state = draw(600, np.random.default_rng(0), missing=0.5)
    known, new, known_state, new_state = train_test_split(table, state, random_state=0, stratify=state)
    model = AnySubsetClassifier(modalities=GROUPS, width=32, steps=steps, random_state=0)
    search = GridSearchCV(model, {"method": ["gmd", "full"]}, cv=2).fit(known, known_state)
    print(f"Of two methods {search.best_params_['method']} is better on the samples as they are.")
    best = search.best_estimator_
    scores = best.scenario_scores(new, new_state)
    for scenario, score in scores.items():
        print(f"{scenario:12} {score:.3f}")
    one = {"scan": new[~np.isnan(new[:, 5])][:1, 5:]}  # Modalities by name: blood is not even mentioned.
    print(f"From a scan alone: {best.predict(one)[0]}, with chance {best.predict_proba(one).max():.3f}.")
    return scores


if __name__ == "__main__":
    main()
