"""Tasks: the modalities, loss and prediction of segmentation, and of regression and classification."""
