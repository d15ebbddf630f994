"""What counts as stop, start or help in a reply, and what does not."""

# ruff: noqa: RUF001 -- look-alike characters are what is tested

import unicodedata
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier_channels.sms.keywords import _ROLES, TWILIOS, Keyword, Role, is_twilios, read

KEYWORDS = {role: role for role in Keyword} | {Role.ENDS: Keyword.STOP}
PHRASES = {" ".join(words): KEYWORDS[role] for words, role in _ROLES.items() if role in KEYWORDS}


@pytest.mark.parametrize(
    "body",
    [
        *(
            "STOP",
            "Stop please",
            "STOP.",
            "stop!!",
            "  stop\n",
            "Stop 🛑",
            "STOP STOP STOP",
            "S.T.O.P",
            "s t o p",
            "stop it",
        ),
        *(
            "please unsubscribe me",
            "opt out",
            "Opt-Out",
            "OPTOUT",
            "stop all",
            "cancel",
            "end",
            "quit",
            "revoke",
            "END.",
        ),
        *(
            "Stop sending me messages",
            "Please stop texting me now, thanks",
            "stop these texts",
            "remove me from your list",
        ),
        *(
            "Cease",
            "cease and desist",
            "Go away!",
            "Reply STOP",
            "Stop1",
            "Bitte stoppen Sie das",
            "Lasst mich in Ruhe",
        ),
        *("Stop ai messaggi", "Lasciatemi in pace", "Déjenme en paz", "Laissez-moi tranquille"),
        *("Don't text me anymore", "don’t text me", "DO NOT TEXT ME", "leave me alone", "take me off your list please"),
        *(
            "I don't want these messages",
            "i do not want to receive any more texts",
            "no more messages",
            "I want to stop",
        ),
        *(
            "Stopp",
            "bitte abmelden",
            "abbestellen",
            "keine SMS mehr",
            "Bitte keine Werbung mehr!",
            "kündigen",
            "Kuendigen",
        ),
        *(
            "ne plus recevoir",
            "Arrêt",
            "arret",
            "ARRÊTEZ",
            "je ne veux plus recevoir de messages",
            "désabonner",
            "STOP SMS",
        ),
        *("baja", "Darme de baja por favor", "cancelar", "no más mensajes", "NO MAS", "no quiero recibir más mensajes"),
        *("annulla", "cancellami", "disiscrivimi", "non voglio più ricevere messaggi", "basta messaggi"),
        *("parar", "sair", "não quero mais receber mensagens", "descadastrar"),
        *("afmelden", "uitschrijven", "geen sms meer", "stop ermee", "schrijf me uit aub"),
        *("إلغاء الاشتراك", "الغاء الاشتراك", "توقف", "إيقاف", "قِفْ", "لا ترسلوا رسائل"),
        *("הסר", "הסירו אותי", "עצור", "תפסיקו בבקשה"),
        *(
            "Yes stop",
            "I said stop",
            "Stop, you have the wrong number",
            "STOP and delete my data",
            "I would like to unsubscribe",
            "I'd like to opt out please",
            "how can I unsubscribe",
            "How do I unsubscribe?",
            "never text me again",
            "Do not ever text me again!",
            "Who is this? Stop texting me",
            "cancel now",
            "End now!",
        ),
        *(
            "No. Stop texting me",
            "No, stop",
            "NO STOP!!",
            "no thanks, stop",
            "No thank you. Unsubscribe.",
            "Nein, stopp",
            "Nein danke, abmelden",
            "no gracias, baja",
            "nee stop",
        ),
        *(
            "STOP\n\nSent from my iPhone",
            "stop please\r\n-- \r\nAnn Miller, Example Ltd",
            "Stop\n\nGet Outlook for iOS",
            "Abmelden\n\nVon meinem iPhone gesendet",
            "arrêt\nEnvoyé de mon iPhone",
            "baja\nEnviado desde mi iPhone",
            "stop\n________________________________\nFrom: Acme\nYour parcel is here",
        ),
        # The carriers' words with what messages are called; and what can be read both ways.
        *(
            "cancel these texts",
            "end all messages please",
            "remove my number",
            "fim de mensagens",
            "cancelar sms ahora",
        ),
        *("cancel all", "plus de messages", "stop it", "end end", "cancel help", "chega de mensagens", "quit that"),
        *("ＳＴＯＰ", "stop\u200b", "🛑stop🛑", "stop help", "help me stop these messages"),
    ],
)
def test_any_reasonable_wording_of_stop_is_one(body: str):
    assert read(body) is Keyword.STOP


@pytest.mark.parametrize(
    "body",
    [
        *(
            "",
            " ",
            "🛑",
            "?!",
            "yes",
            "YES",
            "no",
            "no thanks",
            "nein danke",
            "no start",
            "no help",
            "no end",
            "ok",
            "thanks",
            "please",
            "me",
            "these messages",
            "fine",
            "para",
        ),
        *(
            "bus stop",
            "where is the bus stop",
            "don't stop",
            "Don’t stop!",
            "do not stop",
            "please don't stop",
            "never stop",
        ),
        *(
            "nonstop",
            "non-stop",
            "non stop",
            "when do you start",
            "When do you stop?",
            "the end of the month",
            "weekend",
        ),
        *("cancel my order", "cancel my appointment please", "stop at the shop", "my endless info", "unstoppable"),
        *(
            "start messages",
            "can you help me with my order",
            "helpful",
            "information about my order",
            "what time is the end",
        ),
        *(
            "quit smoking",
            "I quit my job",
            "I don't want it",
            "remove the sofa",
            "one more stop then home",
            "stopwatch",
        ),
        *(
            "cancel it",
            "remove that",
            "the end",
            "from end to end",
            "end this",
            "can you cancel it",
            "I want to cancel",
        ),
        *("chega", "chega agora?", "salir ahora?", "sair agora", "à la fin", "the end.\nSent from my iPhone"),
        *("yes please", "I said yes", "Sent from my iPhone", "wrong number", "delete my data", "see you\n--\nstop"),
        *("I would like to start", "can you help", "how can I get help", "cancel it please, who is this"),
        *("nicht stoppen", "das Ende vom Lied", "Haltestelle", "ne pas arrêter", "en fin de semaine", "fin du mois"),
        *("voy a la baja temporada", "no cancelar", "fine settimana", "ik kom aan het einde", "start stoppen niet"),
    ],
)
def test_a_sentence_about_something_else_is_none(body: str):
    assert read(body) is Keyword.NONE


@pytest.mark.parametrize(
    "body", ["start", "START", "Start please", "unstop", "subscribe", "opt in", "anmelden", "ابدأ"]
)
def test_start_lifts(body: str):
    assert read(body) is Keyword.START


@pytest.mark.parametrize(
    "body", ["help", "HELP!", "help me please", "info", "Hilfe", "aide", "ayuda", "עזרה", "Aiuto?"]
)
def test_help_is_help(body: str):
    assert read(body) is Keyword.HELP


@pytest.mark.parametrize(
    ("told", "keyword"), [("STOP", Keyword.STOP), ("START", Keyword.START), ("HELP", Keyword.HELP)]
)
def test_twilios_own_reading_stands_above_ours(told: str, keyword: Keyword):
    assert read("yes", told) is keyword
    assert read("stop", told) is keyword
    assert read("bus stop", told) is keyword
    assert read("stop", "") is read("stop", "WHATEVER") is Keyword.STOP


def test_every_word_of_twilios_has_a_verdict_but_yes():
    assert {word: read(word) for word in TWILIOS if read(word) is Keyword.NONE} == {"YES": Keyword.NONE}


@pytest.mark.parametrize("word", sorted(TWILIOS))
def test_twilio_answers_its_own_words_alone(word: str):
    assert is_twilios(word)
    assert is_twilios(f"  {word.lower()}\n")
    assert not is_twilios(f"{word} please")
    assert not is_twilios(f"{word}.")
    assert not is_twilios(f"{word} {word}")


noise = st.text(st.sampled_from(" .,!?:;-_*\n\t…🛑😡❤️\u200b\u200d“”()#"), max_size=6)
casing = st.sampled_from([str.upper, str.lower, str.title, str.swapcase])


def fullwidth(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


width = st.sampled_from([str, fullwidth, lambda text: unicodedata.normalize("NFD", text)])


@given(st.sampled_from(sorted(PHRASES)), noise, noise, casing, width)
def test_case_punctuation_width_and_emoji_never_change_a_verdict(phrase: str, before: str, after: str, case, form):
    assert read(before + form(case(phrase)) + after) is PHRASES[phrase]


def test_who_says_stop_and_anything_else_of_ours_has_said_stop():
    """Also where the two meet in a third: "unsubscribe me" is a phrase, and of "me reabonner" the rest is none."""
    stops = {phrase for phrase, keyword in PHRASES.items() if keyword is Keyword.STOP}
    pairs = {f"{one} {other}" for stop in stops for phrase in PHRASES for one, other in permutations((stop, phrase))}
    assert {pair for pair in pairs if read(pair) is not Keyword.STOP} == set()


others = st.lists(
    st.sampled_from(["train", "lamp", "order", "monday", "when", "does", "kommt", "Lampe", "demain", "mañana"]),
    min_size=1,
)


@given(st.sampled_from(sorted(PHRASES)), others, others)
def test_a_keyword_within_an_unrelated_sentence_is_none(phrase: str, before: list[str], after: list[str]):
    assert read(" ".join([*before, phrase])) is Keyword.NONE
    assert read(" ".join([phrase, *after])) is Keyword.NONE
    assert read(" ".join([*before, phrase, *after])) is Keyword.NONE


@given(st.sampled_from(sorted(PHRASES)), st.sampled_from(["x", "qu", "zz", "ø", "ж", "ש"]))
def test_a_keyword_within_a_word_is_not_read_out_of_it(phrase: str, more: str):
    assert read(phrase + more) is Keyword.NONE
    assert read(more + phrase) is Keyword.NONE


# What people answer to messages that are no advertising: with small words, courtesies and dates, and a carriers' word.
HARMLESS = [
    *(
        "yes please",
        "no thanks",
        "ok",
        "who is this?",
        "wrong number",
        "thank you",
        "sí gracias",
        "oui merci",
        "ja bitte",
    ),
    *("when do you start", "don't stop", "the bus stop", "at the end", "the end", "from end to end", "end this now"),
    *("cancel it", "cancel my order", "remove that", "remove the sofa", "I want to cancel", "can you end it"),
    *("chega agora?", "salir ahora?", "sair agora", "o fim da rua", "en fin de semaine", "das Ende", "la fin"),
    *("please call me", "I never stop", "my number is 5", "delete my data", "can you help me with it", "see you now"),
]
courtesies = st.sampled_from(["", "please", "Hi,", "thanks", "yes", "ok", "bitte", "merci", "🙂"])


@given(st.lists(st.tuples(courtesies, st.sampled_from(HARMLESS)), min_size=1, max_size=4), courtesies, casing, width)
def test_no_sentence_made_of_harmless_ones_is_a_stop(parts: list[tuple[str, str]], last: str, case, form):
    body = ". ".join([*(f"{before} {sentence}" for before, sentence in parts), last])
    assert read(form(case(body))) is Keyword.NONE


@given(
    st.sampled_from(sorted(PHRASES)), st.sampled_from(["Sent from my iPhone", "-- \nAnn", "Get Outlook for Android"])
)
def test_what_a_mail_program_signs_changes_no_verdict(phrase: str, signature: str):
    assert read(f"{phrase}\n\n{signature}") is PHRASES[phrase]


@given(st.text(max_size=300))
def test_anything_at_all_has_a_verdict(body: str):
    assert read(body) in Keyword
    is_twilios(body)
