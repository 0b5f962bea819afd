"""Whisper's normalisation of English texts before words are compared.

After the steps of Radford et al. 2022, appendix C: how a transcriber writes a number, a contraction
or a title is no error. British spellings become American by rules for the common endings, so a rare
word may keep its spelling; both sides of a comparison are treated alike.
"""

import re
import unicodedata

from transformer.scoring.spoken_numbers import with_digits

# Step 3: sounds that are no words.
_SOUNDS = re.compile(r"\b(?:hmm|mm|mhm|mmm|uh|um)\b")
# Step 5: contractions, titles and endings, in this order.
_WHOLE = {
    "won't": "will not",
    "can't": "can not",
    "let's": "let us",
    "ain't": "aint",
    "y'all": "you all",
    "ma'am": "madam",
    "i'ma": "i am going to",
    "imma": "i am going to",
    "wanna": "want to",
    "gonna": "going to",
    "gotta": "got to",
    "woulda": "would have",
    "coulda": "could have",
    "shoulda": "should have",
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "st": "saint",
    "prof": "professor",
    "rev": "reverend",
    "hon": "honorable",
    "jr": "junior",
    "sr": "senior",
    "esq": "esquire",
    "capt": "captain",
    "col": "colonel",
    "gen": "general",
    "lt": "lieutenant",
    "gov": "governor",
    "sen": "senator",
    "rep": "representative",
    "pres": "president",
    "ald": "alderman",
    "asst": "assistant",
    "assoc": "associate",
}
_ENDINGS = {
    r"'d(?= (?:been|gone|done)\b)": " had",
    r"'s(?= (?:been|gone|got)\b)": " has",
    r"n't\b": " not",
    r"'re\b": " are",
    r"'s\b": " is",
    r"'d\b": " would",
    r"'ll\b": " will",
    r"'t\b": " not",
    r"'ve\b": " have",
    r"'m\b": " am",
}
_CONTRACTED = re.compile(rf"\b(?:{'|'.join(_WHOLE)})\b")
# Step 8: letters that are no letter with a mark.
_LETTERS = str.maketrans(
    {"œ": "oe", "ø": "o", "æ": "ae", "ß": "ss", "đ": "d", "ð": "d", "þ": "th", "ł": "l"}
)
_KEPT = ".%$¢€£"
# Step 10: British endings and the American ones, with the stems that have them.
_OUR = (
    "arb|arm|behavi|cand|clam|col|endeav|fav|ferv|flav|harb|hon|hum|lab|neighb|od|parl|ranc|rum|"
    "sav|splend|tum|val|vap|vig"
)
_ISE = (
    "agon|apolog|author|capital|categor|central|character|civil|colon|critic|crystal|custom|digit|"
    "econom|emphas|equal|familiar|final|general|harmon|hospital|ideal|immun|initial|legal|local|"
    "material|maxim|memor|minim|mobil|modern|national|neutral|normal|optim|organ|patron|penal|"
    "polar|popular|prior|public|real|recogn|reorgan|special|stabil|standard|steril|subsid|summar|"
    "symbol|sympath|synchron|terror|util|vandal|visual"
)
_ER = "calib|cent|centimet|fib|kilomet|lit|lust|meag|met|sab|somb|spect|theat"
_L = "cancel|counsel|dial|fuel|label|level|marvel|model|quarrel|signal|travel"
_SPELLINGS = {
    re.compile(rf"\b({_OUR})our"): r"\1or",
    re.compile(rf"\b({_ISE})is(?=(?:e|ed|es|er|ers|ing|ation|ations|able)\b)"): r"\1iz",
    re.compile(r"\b(anal|catal|paral)ys(?=(?:e|ed|er|ers|es|ing)\b)"): r"\1yz",
    re.compile(rf"\b({_ER})re(?=s?\b)"): r"\1er",
    re.compile(rf"\b({_L})l(?=(?:ed|ing|er|ers|or|ors|ous)\b)"): r"\1",
    re.compile(r"\b(defen|offen|licen|preten)ce(?=s?\b)"): r"\1se",
    re.compile(r"\b(catalog|dialog|analog|monolog)ue(?=s?\b)"): r"\1",
    re.compile(r"\b(program)me(?=s?\b)"): r"\1",
    re.compile(r"\b(mo)uld(?=(?:s|ed|ing|y)\b)"): r"\1ld",
    re.compile(r"\bgrey(?=s|ed|ing|\b)"): "gray",
    re.compile(r"\baeroplane(?=s?\b)"): "airplane",
}


def normalized_english(text: str) -> str:
    """An English text in the form in which Whisper's word error rates are counted."""
    text = re.sub(r"[<\[][^>\]]*[>\]]|\([^)]+\)", "", text.lower())
    text = _SOUNDS.sub("", text)
    text = re.sub(r"\s+'", "'", text)
    text = _CONTRACTED.sub(lambda found: _WHOLE[found[0]], text)
    for pattern, long in _ENDINGS.items():
        text = re.sub(pattern, long, text)
    text = re.sub(r"(?<=\d),(?=\d)", "", text)
    text = re.sub(r"\.(?!\d)", " ", text)
    text = "".join(map(_plain, unicodedata.normalize("NFKD", text.translate(_LETTERS))))
    text = with_digits(text)
    for spelling, american in _SPELLINGS.items():
        text = spelling.sub(american, text)
    # Signs that belong to no number.
    text = re.sub(r"[.$¢€£](?!\d)|(?<!\d)%", " ", text)
    return " ".join(text.split())


def _plain(character: str) -> str:
    """A letter without marks; a space for a sign that says no number."""
    kind = unicodedata.category(character)
    if character in _KEPT:
        return character
    return "" if kind == "Mn" else " " if kind[0] in "MSP" else character
