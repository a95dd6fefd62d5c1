"""What a data set asks for: loss, prediction and metrics of segmentation and of prediction."""
