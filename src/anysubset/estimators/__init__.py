"""A classifier and a regressor with the interface of scikit-learn, for samples in memory that may lack modalities.

    >>> model = AnySubsetClassifier(modalities={"omics": slice(0, 40), "clinic": [40, 41]}, steps=300)
    >>> model.get_params()["method"]
    'gmd'

In addition to the methods of scikit-learn they have `scenario_scores`, the score for each subset of the modalities, and
`modality_importances`, what each modality contributes. Here the sign of `blood` is the class, and `scan` is noise:

    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> X = {"blood": random.normal(size=(80, 2)), "scan": random.normal(size=(80, 2))}
    >>> y = X["blood"][:, 0] > 0
    >>> model = AnySubsetClassifier(method="linear", random_state=0).fit(X, y)
    >>> scores = model.scenario_scores(X, y, scoring="roc_auc")
    >>> scores["blood"] > 0.95 > scores["scan"]
    True
    >>> importance = model.modality_importances(X, y, resamples=100)
    >>> importance["blood"].low > 0.2 > importance["scan"].value
    True
"""

from anysubset.estimators.classifier import AnySubsetClassifier
from anysubset.estimators.regressor import AnySubsetRegressor

__all__ = ["AnySubsetClassifier", "AnySubsetRegressor"]
