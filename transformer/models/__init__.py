"""Architectures, one short file each, composed from `nn`. The file's name is `config.model.name`."""
