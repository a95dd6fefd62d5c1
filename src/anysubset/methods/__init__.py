"""Methods. Each combines a network, its training objectives and an update rule that turns losses into gradients."""
