"""Numbers in words as digits: "twenty one" as 21, "nineteen eighty four" as 1984.

A number is put together from the left. Each word fits into the zeros at its end ("twenty" leaves
room for one digit, "hundred" for two), or multiplies what stands before it, or begins anew behind
it; so single digits and years come out as people mean them.
"""

import decimal
import re

_ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_ONES += ["eleven", "twelve"]
_ONES += [f"{stem}teen" for stem in ("thir", "four", "fif", "six", "seven", "eigh", "nine")]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_POWERS = [f"{stem}illion" for stem in ("m", "b", "tr", "quadr", "quint", "sext", "sept", "oct")]
_ZEROS = frozenset(["o", "oh", "zero"])
_UNITS = {word: value for value, word in enumerate(_ONES, 1)}
_SMALL = _UNITS | {word: 10 * value for value, word in enumerate(_TENS, 2)}
_LARGE = {"hundred": 100, "thousand": 1000}
_LARGE |= {word: 1000 ** (place + 2) for place, word in enumerate(_POWERS)}
# Ordinals and plurals that do not end as the others do.
_IRREGULAR = {
    "zeroth": ("zero", "th"),
    "first": ("one", "st"),
    "second": ("two", "nd"),
    "third": ("three", "rd"),
    "fifth": ("five", "th"),
    "eighth": ("eight", "th"),
    "ninth": ("nine", "th"),
    "twelfth": ("twelve", "th"),
    "sixes": ("six", "s"),
}
_SIGNS = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}
_CURRENCIES = {"pound": "£", "euro": "€", "dollar": "$", "cent": "¢"}
_CURRENCIES |= {f"{word}s": sign for word, sign in _CURRENCIES.items()}
_REPEATS = {"double": 2, "triple": 3}
_DIGITS = re.compile(r"([-+£€$¢]?)(\d+(?:\.\d+)?)")
# Digits of a number beyond which it is copied as it is.
_MOST_DIGITS = 60
_EXACTLY = decimal.Context(prec=2 * _MOST_DIGITS)


def _suffixed() -> dict[str, tuple[str, str]]:
    """Ordinals and plurals: the word of the number, and what stands behind its digits."""
    found = {}
    for word in (*_SMALL, *_LARGE):
        stem = f"{word[:-1]}ie" if word.endswith("y") else word
        found |= {f"{stem}s": (word, "s"), f"{stem}th": (word, "th")}
    return found | _IRREGULAR


_SUFFIXED = _suffixed()
_HALF = re.compile(rf"\b({'|'.join([*_SMALL, *_LARGE, *_ZEROS])}) and a half\b")
_WORDS = _ZEROS | _SMALL.keys() | _LARGE.keys() | _SUFFIXED.keys()


class _Number:
    """A number that is being put together: some digits, and a last part that may still grow."""

    def __init__(self) -> None:
        self._digits = ""
        self._last: int | None = None
        # The last part has zeros below this power of ten.
        self._room = 1

    def __str__(self) -> str:
        return self._digits + ("" if self._last is None else str(self._last))

    def take(self, word: str) -> None:
        """Adds a word of a number."""
        if word in _ZEROS:
            self.append("0")
        elif word in _LARGE:
            self._multiply(_LARGE[word])
        else:
            self._add(_SMALL[word])

    def append(self, digits: str) -> None:
        """Adds digits, or the decimal point, behind the others."""
        self._digits, self._last = f"{self}{digits}", None

    def begin(self, digits: str) -> None:
        """Takes digits as they are written, as the whole number."""
        if digits.isdigit() and len(digits) <= _MOST_DIGITS and int(digits):
            self._digits, self._last = "", int(digits)
            self._room = 10 ** (len(digits) - len(digits.rstrip("0")))
        else:
            self._digits, self._last = digits, None

    def _add(self, value: int) -> None:
        if self._last is not None and value < self._room:
            self._last += value
        else:
            self._digits, self._last = str(self), value
        self._room = 10 if value >= 20 else 1

    def _multiply(self, factor: int) -> None:
        if not str(self):
            self._last = factor
        elif len(str(self)) > _MOST_DIGITS:
            self.append(str(factor))
        elif self._digits:
            product = _EXACTLY.multiply(decimal.Decimal(str(self)), factor)
            self._digits, self._last = "", int(product)
            if product != self._last:
                self._digits, self._last = f"{product.normalize():f}", None
        else:
            last = self._last or 0
            # "Thousand" multiplies the hundreds too, but not the millions.
            low = last % (1000 if factor == 100 else 1000 * factor)
            self._last = last - low + (low or 1) * factor
        self._room = factor


class _Reader:
    """Goes through words once."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._number, self._sign = _Number(), ""

    @property
    def _in_number(self) -> bool:
        return bool(str(self._number))

    def read(self, before: str, word: str, after: str) -> int:
        """Reads a word between its neighbours; returns how many words were used."""
        written = _DIGITS.fullmatch(word)
        numeric = after in _WORDS or _DIGITS.fullmatch(after) is not None
        if written is not None:
            self._digits(written[1], written[2])
        elif word in _WORDS:
            base, suffix = _SUFFIXED.get(word, (word, ""))
            self._number.take(base)
            if suffix:
                self.end(suffix)
        elif word in _REPEATS and (after in _ZEROS or _UNITS.get(after, 10) < 10):
            self._number.append(str(_UNITS.get(after, 0)) * _REPEATS[word])
            return 2
        elif word == "point" and numeric:
            self._number.append(".")
        elif word == "and" and numeric and before in _LARGE:
            return 1
        elif word in _SIGNS and numeric:
            self.end()
            self._sign = _SIGNS[word]
        elif self._in_number and word in _CURRENCIES:
            self._sign = _CURRENCIES[word]
            self.end()
        elif self._in_number and (word == "percent" or (word == "per" and after == "cent")):
            self.end("%")
            return 1 if word == "percent" else 2
        else:
            self.end()
            self.found.append(word)
        return 1

    def end(self, suffix: str = "") -> None:
        """Writes the number, if there is one."""
        if self._in_number:
            self.found.append(f"{self._sign}{self._number}{suffix}")
            self._number, self._sign = _Number(), ""

    def _digits(self, sign: str, digits: str) -> None:
        if str(self._number).endswith("."):
            self._number.append(digits)
            return
        self.end()
        self._sign = sign or self._sign
        self._number.begin(digits)


def with_digits(text: str) -> str:
    """A lowercase text in which numbers are digits with their signs: "$20", "5%", "-3", "21st".

    A single one stays a word, because it need not be a number.
    """
    text = _HALF.sub(r"\1 point five", text)
    text = re.sub(r"(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z])", " ", text)
    text = re.sub(r"(\d) +(st|nd|rd|th|s)\b", r"\1\2", text)
    words = text.split()
    reader, place = _Reader(), 0
    while place < len(words):
        before, after = (words[at] if 0 <= at < len(words) else "" for at in (place - 1, place + 1))
        place += reader.read(before, words[place], after)
    reader.end()
    text = " ".join(reader.found)
    text = re.sub(r"([€£$])(\d+) (?:and )?¢(\d{1,2})\b", _with_cents, text)
    text = re.sub(r"[€£$]0\.(\d{1,2})\b", lambda found: f"¢{int(found[1])}", text)
    return re.sub(r"\b1(s?)\b", r"one\1", text)


def _with_cents(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}.{int(found[3]):02}"
