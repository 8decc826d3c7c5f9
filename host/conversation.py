"""Turns of a conversation as tokens to feed: through the model's chat template, or as they are where it has none."""

from __future__ import annotations

from dataclasses import dataclass

from host.chat_template import Message
from host.text import Text


@dataclass(frozen=True)
class Turn:
    """What to feed before the model answers."""

    tokens: list[int]
    from_start: bool
    """The whole conversation, for an empty sequence; else what follows the tokens that were fed and generated."""


class Conversation:
    """``ask`` gives the tokens of what the user says; ``answered`` tells what became of it.

    A template renders the conversation anew at each turn. Where that begins with what was fed before, only the rest is
    fed; a template that rewrites earlier turns (some drop what a model thought) makes the conversation start over.
    """

    def __init__(self, text: Text, system: str | None = None, template: bool = True):
        self._text = text
        self._template = text.chat_template if template else None
        self._messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self._rendered = ""
        self._system = system if self._template is None else None

    def ask(self, line: str) -> Turn:
        """Raises :class:`host.errors.HostError` when the template refuses it."""
        first = not self._rendered
        if self._template is None:
            said = f"{self._system}\n{line}" if first and self._system else line
            return Turn(self._text.encode(said) if first else self._text.encode_rendered(said), first)
        rendered = self._template.render([*self._messages, {"role": "user", "content": line}])
        rest = None if first else self._behind(rendered)
        if rest is None:
            return Turn(self._text.encode_rendered(rendered), True)
        return Turn(self._text.encode_rendered(rest), False)

    def _behind(self, rendered: str) -> str | None:
        """What follows the last answer; None where the conversation no longer begins as it was fed."""
        answer = str(self._messages[-1]["content"])
        for shown in (answer, answer.strip()):
            if rendered.startswith(self._rendered + shown):
                return rendered[len(self._rendered) + len(shown):]
        return None

    def start_over(self) -> None:
        """The sequence is empty again: feed everything with the next turn."""
        self._rendered = ""

    def answered(self, line: str, answer: str) -> None:
        """The user said ``line`` and the model ``answer``; without this the turn hasn't happened."""
        if self._template is None:
            self._rendered = "begun"
            return
        self._messages.append({"role": "user", "content": line})
        self._rendered = self._template.render(self._messages)
        self._messages.append({"role": "assistant", "content": answer})
