"""A classifier and a regressor with the interface of scikit-learn, for samples in memory that may lack modalities.

    >>> model = AnySubsetClassifier(modalities={"omics": slice(0, 40), "clinic": [40, 41]}, steps=300)
    >>> model.get_params()["method"]
    'gmd'

In addition to the methods of scikit-learn they have `scenario_scores`: the score for each subset of the modalities.
"""

from anysubset.estimators.classifier import AnySubsetClassifier
from anysubset.estimators.regressor import AnySubsetRegressor

__all__ = ["AnySubsetClassifier", "AnySubsetRegressor"]
