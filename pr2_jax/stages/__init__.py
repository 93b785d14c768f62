"""The bodies of the stages: each reads artifacts of earlier ones and writes one directory."""
