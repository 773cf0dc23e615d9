"""What is done once to data before training: fetched, unpacked, converted, looked through."""
