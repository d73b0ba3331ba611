"""What in an image the network's answer rests on (needs torch)."""
