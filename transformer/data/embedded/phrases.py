"""Translated phrases from the Unicode CLDR: dates, amounts, lists, as two languages write them."""

import datetime
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from transformer.data.embedded.held_out import is_held_out
from transformer.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    import babel

# One way to write one meaning, in the language passed as `locale`. The package `babel` is optional,
# so the functions that make these import it.
Rendering = Callable[..., str]

YEARS = (1900, 2099)
DATE_STYLES = ("full", "long", "medium")
LIST_STYLES = ("standard", "or")
UNITS = (
    *("length-centimeter", "length-meter", "length-kilometer", "length-inch", "length-mile"),
    *("mass-gram", "mass-kilogram", "mass-pound", "area-square-meter", "area-hectare"),
    *("volume-milliliter", "volume-liter", "volume-cubic-meter", "temperature-celsius"),
    *("speed-kilometer-per-hour", "speed-meter-per-second", "digital-gigabyte", "power-watt"),
    *("energy-kilowatt-hour", "duration-hour", "duration-minute", "frequency-hertz"),
)
# All have cents: yen would be rounded, and "1 yen" stand for 1 and for 1.4, with two plural forms.
CURRENCIES = ("USD", "EUR", "GBP", "CHF", "CAD", "INR", "BRL", "PLN")
TERRITORIES = (
    *("AR", "AT", "AU", "BE", "BG", "BR", "CA", "CH", "CL", "CN", "CO", "CU", "CY", "CZ", "DE"),
    *("DK", "EE", "EG", "ES", "ET", "FI", "FR", "GB", "GR", "HR", "HU", "ID", "IE", "IL", "IN"),
    *("IQ", "IR", "IS", "IT", "JP", "KE", "KR", "LT", "LU", "LV", "MA", "MX", "NG", "NL", "NO"),
    *("NZ", "PE", "PH", "PL", "PT", "RO", "RS", "RU", "SA", "SE", "SK", "TH", "TR", "UA", "US"),
)


def phrase_pairs(source: str, target: str, *, count: int, seed: int) -> list[tuple[str, str]]:
    """Phrases in one language and the same in another, each source phrase once.

    The kinds of phrase (dates, dates with a time, times, relative times, units, currencies,
    percentages, lists) are drawn equally often, and each draw gives phrases in all styles. A
    source phrase with two translations ("May 4, 2020" is "4. Mai 2020" written out and "04.05.2020"
    abbreviated) is left out, so that the target is a function of the source.

    Args:
        source: CLDR locale of the source phrases, such as "en".
        target: CLDR locale of their translations, such as "de".
        count: the number of pairs.
        seed: the seed of the draws.

    Raises:
        MissingDependencyError: if the package `babel` is not installed.
        ConfigError: if a locale is unknown.
    """
    locales = _locale("source_language", source), _locale("target_language", target)
    random = Random(seed)
    pairs: dict[str, str] = {}
    ambiguous = set()
    while len(pairs) < count:
        for render in random.choice(KINDS)(random):
            phrase, translation = (_plain(render(locale=locale)) for locale in locales)
            if phrase in ambiguous or pairs.setdefault(phrase, translation) == translation:
                continue
            ambiguous.add(phrase)
            del pairs[phrase]
    return list(pairs.items())[:count]


def split_phrases(
    pairs: Iterable[tuple[str, str]], validation_fraction: float
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The pairs for training and about `validation_fraction` of them for validation.

    The source phrase alone decides, so that no validation source occurs in training, for any number
    of pairs and any seed.
    """
    train, validation = [], []
    for pair in pairs:
        (validation if is_held_out(pair[0], validation_fraction) else train).append(pair)
    return train, validation


def _locale(field: str, name: str) -> "babel.Locale":
    try:
        from babel import Locale, UnknownLocaleError
    except ImportError:
        raise MissingDependencyError("babel", "data", "training on CLDR phrases") from None
    try:
        return Locale.parse(name.replace("-", "_"))
    except (UnknownLocaleError, ValueError):
        raise ConfigError(
            f'config.task.{field} is "{name}", which is no locale of the CLDR: give the code of a '
            f'language, such as "en", "de" or "pt_BR".'
        ) from None


def _plain(text: str) -> str:
    """One line with plain spaces: `split` also cuts at U+00A0 and U+202F."""
    return " ".join(text.split())


def _number(random: Random, digits: int) -> int | Decimal:
    """A whole number of up to `digits` digits, or one with a decimal that is not zero."""
    whole = random.randrange(10 ** random.randint(1, digits))
    return Decimal(f"{whole}.{random.randint(1, 9)}") if random.randrange(2) else whole


def _day(random: Random) -> datetime.date:
    first, last = datetime.date(YEARS[0], 1, 1), datetime.date(YEARS[1], 12, 31)
    return datetime.date.fromordinal(random.randint(first.toordinal(), last.toordinal()))


def _time(random: Random) -> datetime.time:
    return datetime.time(random.randrange(24), random.randrange(60), random.randrange(60))


def _dates(random: Random) -> list[Rendering]:
    from babel.dates import format_date

    day = _day(random)
    return [partial(format_date, day, style) for style in DATE_STYLES]


def _times(random: Random) -> list[Rendering]:
    from babel.dates import format_time

    return [partial(format_time, _time(random), "medium")]


def _moments(random: Random) -> list[Rendering]:
    day, time = _day(random), _time(random)
    return [partial(_moment, day, time, style) for style in DATE_STYLES]


def _moment(day: datetime.date, time: datetime.time, style, *, locale: "babel.Locale") -> str:
    """A date with a time; Babel's own longer styles would append the name of a time zone."""
    from babel.dates import format_date, format_time, get_datetime_format

    pattern = str(get_datetime_format(style, locale=locale)).replace("'", "")
    written = format_time(time, "short", locale=locale)
    return pattern.replace("{0}", written).replace("{1}", format_date(day, style, locale=locale))


def _relative_times(random: Random) -> list[Rendering]:
    from babel.dates import TIMEDELTA_UNITS, format_timedelta

    unit, seconds = random.choice(TIMEDELTA_UNITS)
    amount = random.randint(1, 200) * random.choice((-1, 1))
    distance = datetime.timedelta(seconds=amount * seconds)
    # No threshold is reached, so the unit stays: "in 14 days" is not "in 2 weeks".
    options = {"granularity": unit, "threshold": float("inf"), "add_direction": True}
    return [partial(format_timedelta, distance, **options)]


def _units(random: Random) -> list[Rendering]:
    from babel.units import format_unit

    return [partial(format_unit, _number(random, 5), random.choice(UNITS), "long")]


def _currencies(random: Random) -> list[Rendering]:
    from babel.numbers import format_currency

    amount, currency = _number(random, 5), random.choice(CURRENCIES)
    cents = isinstance(amount, Decimal)
    return [partial(format_currency, amount, currency, format_type="name", currency_digits=cents)]


def _percentages(random: Random) -> list[Rendering]:
    from babel.numbers import format_percent

    share = Decimal(_number(random, 3)) / 100
    return [partial(format_percent, share, decimal_quantization=False)]


def _lists(random: Random) -> list[Rendering]:
    listed = {"territories": TERRITORIES, "months": range(1, 13), "days": range(7)}
    kind = random.choice(tuple(listed))
    keys = random.sample(listed[kind], random.randint(2, 4))
    return [partial(_list, kind, keys, style) for style in LIST_STYLES]


def _list(kind: str, keys: list, style, *, locale: "babel.Locale") -> str:
    from babel.lists import format_list

    if kind == "territories":
        names = locale.territories
    else:
        names = (locale.months if kind == "months" else locale.days)["stand-alone"]["wide"]
    return format_list([names.get(key, key) for key in keys], style, locale)


KINDS = (_dates, _moments, _times, _relative_times, _units, _currencies, _percentages, _lists)
