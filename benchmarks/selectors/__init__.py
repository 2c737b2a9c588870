"""The selectors beside named peers: time, growth with size, share of the device, pools on disk, the same picks."""
