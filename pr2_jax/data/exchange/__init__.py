"""The log as a TFDS dataset, without TensorFlow: array_record files, read through `as_data_source`."""
