"""Methods: a network, its objectives, and how their losses become gradients."""
