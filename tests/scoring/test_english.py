import pytest

from transformer.scoring.english import normalized_english
from transformer.scoring.spoken_numbers import with_digits

# Phrases without British spellings, of which the published normaliser has a list.
PHRASES = [
    "He said [laughs] hello (quietly), um, to Mr. Smith.",
    "I can't; she won't, they've gone and we'd been there. It's got to be Dr. Jones's!",
    "You gonna go? I'ma stay, y'all. Let's see: I'd done it, he's been here.",
    "Chapter twenty one, page one hundred and five",
    "in nineteen eighty four and two thousand five, or twenty twenty",
    "one oh one, double seven five, triple zero",
    "ten thousand two hundred thirty four dollars and seven cents",
    "twenty million euros, $20 million and 3.5 million pounds",
    "five percent of it, fifty per cent, 12% more",
    "three point one four one five and two and a half",
    "the twenty first of May, the third, the thirtieth and the hundredth",
    "the nineteen twenties, the 1960s, two sixes",
    "minus five degrees, plus two",
    "I have one apple and two ones",
    "1,234,567.89 people at 9.30 a.m.",
    "Élan café naïve Œuvre \N{LATIN SMALL LIGATURE FI}ne - \u201cquoted\u201d end.",
    "two million three hundred thousand and one",
    "20km, the 5th, b2b",
    "O no, o two",
    "seven hundred seventy seven thousand seven hundred seventy seven",
    "fifty cents, $0.07",
    "the second second hundred years",
    "",
]


@pytest.mark.parametrize("phrase", PHRASES)
def test_as_published(phrase):
    published = pytest.importorskip(
        "transformers.models.whisper.english_normalizer", reason="it is compared with"
    )
    assert normalized_english(phrase) == published.EnglishTextNormalizer({})(phrase).strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("twenty one", "21"),
        ("nineteen eighty four", "1984"),
        ("one hundred and twenty", "120"),
        ("one oh one", "101"),
        ("two point five million dollars", "$2500000"),
        ("a point of view", "a point of view"),
        ("salt and seven", "salt and 7"),
        ("one", "one"),
        ("five dollars and seven cents", "$5.07"),
        ("a hundred thousandth", "a 100000th"),
        ("nine trillion and five", "9000000000005"),
        ("one " * 5000 + "million", "1" * 5000 + "1000000"),
    ],
)
def test_numbers(text, expected):
    assert with_digits(text) == expected


@pytest.mark.parametrize(
    ("british", "american"),
    [
        ("The colour of our favourite harbour", "the color of our favorite harbor"),
        ("organised, realising; analysed", "organized realizing analyzed"),
        ("four hours of exercise in the theatre", "4 hours of exercise in the theater"),
        ("travelled to a grey centre", "traveled to a gray center"),
        ("defence of catalogues and programmes", "defense of catalogs and programs"),
    ],
)
def test_spellings(british, american):
    assert normalized_english(british) == american
    assert normalized_english(american) == american


def test_signs_without_a_number():
    assert normalized_english("... $ or 50 % of - .") == "or 50 of"
