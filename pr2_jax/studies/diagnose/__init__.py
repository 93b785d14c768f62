"""`pr2 evaluate --diagnose`: known ways to fail, each measured and held against its normal range."""
