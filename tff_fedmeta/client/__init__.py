"""What one client computes: TensorFlow on one client's tensors, without any federation."""
