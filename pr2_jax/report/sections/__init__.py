"""The report's sections, a file each: what is read, which numbers are shown, and the one line that sums them up."""
