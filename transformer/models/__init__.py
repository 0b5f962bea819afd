"""Architectures, one short file each, composed from `nn`; `config.model.name` names the file."""
