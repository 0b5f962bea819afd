"""Shakespeare's plays as plain text, whole plays held out."""

from transformer.data.embedded.plays import plain_play, plays


def read(validation_fraction: float) -> tuple[str, str]:
    """The plays to train on, and the held-out ones, which are always the same."""
    train, held_out = plays()
    return (
        "\n\n".join(plain_play(play.markdown) for play in train),
        "\n\n".join(plain_play(play.markdown) for play in held_out),
    )
