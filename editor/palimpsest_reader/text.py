"""What the reader reads. The same as `src/selection/text.ts`: a test compares the two over the corpus."""

import unicodedata

LAST_CHARS = 900
EARLIER_CHARS = 200
EARLIER_TURNS = 3
EDIT_CHARS = 480
ALIASES = 4

INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF])


def normalized(text: str) -> str:
    """NFKC, invisible characters dropped, runs of white space one space."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(INVISIBLE).split())


def cut(text: str, chars: int) -> str:
    """The beginning and the end of a long text: two fifths and three fifths of `chars`."""
    if len(text) <= chars:
        return text
    head = chars * 2 // 5
    return f"{text[:head]} … {text[len(text) - (chars - head):]}"


def conversation_end(turns: list[str]) -> str:
    """`turns` alternate, the user's first and last."""
    earlier = [cut(normalized(t), EARLIER_CHARS) for t in turns[-1 - EARLIER_TURNS : -1]]
    last = cut(normalized(turns[-1]), LAST_CHARS)
    return last if not earlier else f"{' | '.join(earlier)} || {last}"


def edit_text(edit: dict) -> str:
    """Of an edit in our own shape."""
    if edit.get("instruction"):
        when = "always" if edit.get("always") else normalized(edit.get("when") or "")
        return cut(f"{when} → {normalized(edit['instruction'])}", EDIT_CHARS)
    if edit.get("text"):
        return cut(normalized(edit["text"]), EDIT_CHARS)
    subject = normalized(edit.get("subject") or "")
    prompt = normalized(edit["prompt"])
    lead = "" if subject == "" or subject.lower() in prompt.lower() else f"{subject}: "
    names = [normalized(a) for a in (edit.get("aliases") or [])][:ALIASES]
    known = "" if not names else f" (= {'; '.join(names)})"
    return cut(f"{lead}{prompt} {normalized(edit['target_new'])}{known}", EDIT_CHARS)


def with_known(text: str, statements: list[str]) -> str:
    """A conversation's end with what earlier hops of a question have found."""
    return text if not statements else f"{text} [{' ; '.join(normalized(s) for s in statements)}]"
