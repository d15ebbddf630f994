"""What is answered to a text message that says STOP, START or HELP, in the person's language.

One confirmation, without advertising, that names the sender (47 CFR 64.1200(a)(12)); HELP names the sender, a contact
and how to stop (CTIA Messaging Principles, 2023). There is one for every language in which STOP is heard. Each fits one
segment with a usual name: 160 letters of GSM-7, so none that it has not (such as the Spanish "á"), or 70 in Arabic and
Hebrew, where there is no room for the rates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from notifier_channels.sms.keywords import Keyword


@dataclass(frozen=True, slots=True)
class Answers:
    """The three answers of one language."""

    stop: str
    start: str
    help: str

    def to(self, said: Keyword, *, sender: str, contact: str) -> str | None:
        """The answer, filled in; None where nothing is answered."""
        text = {Keyword.STOP: self.stop, Keyword.START: self.start, Keyword.HELP: self.help}.get(said)
        return text.format(sender=sender, contact=contact) if text else None


ANSWERS = {
    "en": Answers(
        "{sender}: You will get no more text messages from us. Reply START to get them again.",
        "{sender}: You will get text messages from us again. Reply STOP to end them, HELP for help.",
        "{sender}: Help at {contact}. Msg&data rates may apply. Reply STOP to end text messages.",
    ),
    "de": Answers(
        "{sender}: Sie erhalten keine SMS mehr von uns. Mit START erhalten Sie wieder welche.",
        "{sender}: Sie erhalten wieder SMS von uns. STOP beendet sie, HELP hilft.",
        "{sender}: Hilfe unter {contact}. Es gelten die Preise Ihres Anbieters. STOP beendet die SMS.",
    ),
    "fr": Answers(
        "{sender} : vous ne recevrez plus de SMS de notre part. Répondez START pour en recevoir à nouveau.",
        "{sender} : vous recevrez à nouveau nos SMS. Répondez STOP pour ne plus en recevoir, HELP pour l'aide.",
        "{sender} : aide : {contact}. Tarif de votre opérateur. Répondez STOP pour ne plus recevoir de SMS.",
    ),
    "es": Answers(
        "{sender}: Ya no le enviamos SMS. Responda START para volver a recibirlos.",
        "{sender}: Vuelve a recibir nuestros SMS. Responda STOP para no recibirlos, HELP para ayuda.",
        "{sender}: Ayuda en {contact}. Pueden aplicarse tarifas. Responda STOP para no recibir SMS.",
    ),
    "it": Answers(
        "{sender}: Non riceverà più SMS da noi. Risponda START per riceverli di nuovo.",
        "{sender}: Riceverà di nuovo i nostri SMS. Risponda STOP per non riceverli, HELP per aiuto.",
        "{sender}: Aiuto: {contact}. Si applicano le tariffe del suo operatore. Risponda STOP per non ricevere SMS.",
    ),
    "nl": Answers(
        "{sender}: U krijgt geen sms meer van ons. Antwoord START om ze weer te krijgen.",
        "{sender}: U krijgt weer sms van ons. Antwoord STOP om te stoppen, HELP voor hulp.",
        "{sender}: Hulp via {contact}. Tarief van uw provider. Antwoord STOP om te stoppen.",
    ),
    "pt": Answers(
        "{sender}: Deixa de receber SMS nossos. Responda START para voltar a receber.",
        "{sender}: Volta a receber SMS nossos. Responda STOP para deixar de receber, HELP para ajuda.",
        "{sender}: Ajuda em {contact}. Tarifa do seu operador. Responda STOP para deixar de receber SMS.",
    ),
    "ar": Answers(
        "{sender}: لن تصلك رسائل منا. أرسل START لاستئنافها.",
        "{sender}: ستصلك رسائلنا مجددا. للإيقاف STOP وللمساعدة HELP.",
        "{sender}: المساعدة: {contact}. للإيقاف STOP.",
    ),
    "he": Answers(
        "{sender}: לא יישלחו אליך עוד הודעות. לחידוש: START.",
        "{sender}: שוב יישלחו אליך הודעות. להסרה STOP, לעזרה HELP.",
        "{sender}: עזרה: {contact}. להסרה: STOP.",
    ),
}


def answer(said: Keyword, languages: Iterable[str | None], *, sender: str, contact: str) -> str | None:
    """What to answer, in the first of these languages that there is; English at last."""
    known = [
        ANSWERS[tag.partition("-")[0].lower()] for tag in languages if tag and tag.partition("-")[0].lower() in ANSWERS
    ]
    return (known[0] if known else ANSWERS["en"]).to(said, sender=sender, contact=contact)
