"""TFDS builders. They need no TensorFlow: files are array_record, reading goes through `as_data_source`."""
