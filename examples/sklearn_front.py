"""GMD as an estimator with the interface of scikit-learn: fit, predict, grid search, and a score for each scenario.

Blood and scan are groups of columns of one array. A sample lacks a modality if all its columns are NaN; nothing is
filled in.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV, train_test_split

from anysubset import AnySubsetClassifier

GROUPS = {"blood": slice(0, 5), "scan": slice(5, 17)}


def draw(count: int, generator: np.random.Generator, missing: float) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """(count, 17) measurements and (count,) labels `ill` or `well`; a part of the samples lacks blood or scan."""
    ill = generator.random(count) < 0.5
    table = generator.normal(size=(count, 17)) + np.where(ill, 0.4, -0.4)[:, None]
    lost = generator.choice(["blood", "scan"], size=count)
    for name, columns in GROUPS.items():
        table[(generator.random(count) < missing) & (lost == name), columns] = np.nan
    return table, np.where(ill, "ill", "well")


def main(steps: int = 200) -> dict[str, float]:
    """Accuracy in each scenario on new samples."""
    table, state = draw(600, np.random.default_rng(0), missing=0.5)
    train, new, train_state, new_state = train_test_split(table, state, random_state=0, stratify=state)
    model = AnySubsetClassifier(modalities=GROUPS, width=32, steps=steps, random_state=0)
    search = GridSearchCV(model, {"method": ["gmd", "full"]}, cv=2).fit(train, train_state)
    print(f"Best method in cross-validation on the incomplete samples: {search.best_params_['method']}.")
    best = search.best_estimator_
    scores = best.scenario_scores(new, new_state)
    for scenario, score in scores.items():
        print(f"{scenario:12} {score:.3f}")
    one = {"scan": new[~np.isnan(new[:, 5])][:1, 5:]}  # A dict of modalities, without blood.
    print(f"From a scan alone: {best.predict(one)[0]}, with probability {best.predict_proba(one).max():.3f}.")
    return scores


if __name__ == "__main__":
    main()
