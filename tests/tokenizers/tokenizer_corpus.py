"""The strings that the tokenizers are compared on; the same ones on every machine."""

from __future__ import annotations

import functools
import random

SPECIAL = ["[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<pad>", "<unk>"]
_WORDS = (
    "the of and to in a is that for it was on as with by at from they this have not are which one you all were "
    "her would there their we him been has when who will no more if out so said what up its about than into "
    "them can only other time new some could these two may first then do any my now such like our over man "
    "even most made after also did many off before must well back through years much where your way down "
    "should because long each just state people those too mr how little good world make very year still see "
    "own work men day get here old between both life being under three never know same last another while us "
    "might great go come since against right came take used himself few house use place during high without "
    "again home around small however found mrs part school thought went say general once upon don't isn't it's "
    "they're I'm we've 1999 2024 3.14 Paragraph, sentence. Question? Yes! (brackets) \"quotes\" 'single' "
    "tokenization internationalisation"
)
WORDS = _WORDS.split()
LANGUAGES = [
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva.",
    "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia.",
    "Съешь же ещё этих мягких французских булок.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "いろはにほへと ちりぬるを",
    "敏捷的棕色狐狸跳过懒狗。",
    "다람쥐 헌 쳇바퀴에 타고파",
    "نص حكيم له سر قاطع",
    "דג סקרן שט בים מאוכזב",
    "ऋषियों को सताने वाले दुष्ट राक्षसों",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "Do bạch kim rất quý nên sẽ dùng để lắp vô xương.",
    "Pijamal\u0131 hasta ya\u011f\u0131z \u015foföre çabucak güvendi.",
    "ß İ \u0131 ﬁ ﬂ Å Å ½ ² ™ Ω",
]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "👍🏽", "❤️", "🫠", "1️⃣"]
WHITE = [" ", "  ", "     ", "\t", "\n", "\r\n", "\v", "\f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u2029"]
WHITE += ["\u202f", "\u205f", "\u3000", "\u200b", "\ufeff"]
CONTROL = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))] + ["\u200d", "\u202e", "\ufffd", "\U0010ffff"]
PIECES = [
    "<t>",
    "<sep_0>",
    "<length_1>",
    "<length_10>",
    "<length_1",
    "▁",
    "▁▁",
    "no no",
    "no no no no",
    "Âł Âł",
    "Âł Âł Âł Âł",
]
MARKUP = ["<", ">", "[", "]", "<<t>>", "[[MASK]]", "[MASK", "MASK]", "<pad", "< s >", "[cls]", "</ s>", "⁇"]
ENDS = [".", "?", "!", ",", " .", " ?", " ' ", " n't", " 's", " 've", "e\u0301", "\u0301"]


@functools.cache
def strings() -> tuple[str, ...]:
    """Over 3,500 different strings: every atom alone and in contexts, mixtures, and very long ones."""
    atoms = [*SPECIAL, *LANGUAGES, *EMOJI, *WHITE, *CONTROL, *PIECES, *MARKUP, *ENDS]
    alone = [text for atom in atoms for text in (atom, f" {atom} ", f"x{atom}y", f"x {atom}  y", f"{atom}[MASK]{atom}")]
    near = [f"{left}{white}{right}" for left in ["", "a", *SPECIAL] for white in WHITE for right in ["", "b", *SPECIAL]]
    choose = random.Random(7)
    everything = [*atoms, *WORDS, " ", " ", " "]
    mixed = ["".join(choose.choices(everything, k=choose.randint(2, 12))) for _ in range(700)]
    plain = [" ".join(choose.choices(WORDS, k=choose.randint(1, 40))) for _ in range(700)]
    long = [
        " ".join(WORDS) * 60,
        "a" * 20000,
        " " * 20000 + "a",
        "[MASK] " * 3000,
        "日" * 9000,
        "no " * 9000,
        "x\n" * 9000,
    ]
    return tuple(dict.fromkeys(["", *alone, *near, *mixed, *plain, *long]))
