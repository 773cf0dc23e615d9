"""What is done to data before training: footage, KITTI's archives, a look at what came of it."""
