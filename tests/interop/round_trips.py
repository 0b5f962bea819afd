"""Models of `transformers` with random weights, and what lies in their folders."""

from transformer.interop.formats.safetensors import read_safetensors


def disturbed(kind, config, seed=0, scale=0.1):
    """A model with random weights of more than the usual size, so that differences show."""
    import torch

    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model


def arrays_of(folder):
    return read_safetensors(folder)


def reloaded(kind, folder):
    """The model in a folder; all of its weights are in the files, and no others."""
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[what], f"{what}: {info[what]}"
    return model.eval()
