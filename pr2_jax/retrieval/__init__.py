"""Retrieval channels behind one contract (`encoded_requests.Channel`), and the merge of their results."""
