"""`tokens.json`: what `CLIPTokenizer` makes of prompts, with the demo model's tokenizer.

`ids` are the 77 padded ids; `removed` is the text that diffusers' `encode_prompt` names as cut off in its warning
(`tokenizer.batch_decode(untruncated_ids[:, 76:-1])`), null when nothing is cut.
"""

import torch
from transformers import CLIPTokenizer

from .paths import DEMO, write_json

WORDS = "a red house on a blue background with two yellow stars above it and a small green tree "
PROMPTS = [
    "",
    " ",
    "a red house",
    "A RED HOUSE, Painted By HAND!",
    "  many   spaces\tand\ttabs\nand\r\nlines\u2028and separators  ",
    "the cat's hat isn't theirs, they'll say we've I'm you'd",
    "THE CAT'S HAT ISN'T THEIRS",
    "0 1 12 123 2026 3.14159 1,000,000 x2 4k 8K",
    "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m",
    "cafe\u0301 nai\u0308ve A\u030angstro\u0308m",
    "\u00dcBER STRASSE stra\u00dfe \u0130stanbul \u03a3\u0399\u03a3\u03a5\u03a6\u039f\u03a3",
    "\u7ea2\u8272\u7684\u623f\u5b50 \u8d64\u3044\u5bb6 \ube68\uac04 \uc9d1",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0434\u043e\u043c, \u05d1\u05d9\u05ea \u05d0\u05d3\u05d5\u05dd, \u0628\u064a\u062a \u0623\u062d\u0645\u0631",
    "a \U0001f408 and a \U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f1eb\U0001f1f7",
    "zero\u200bwidth \u200djoiner \ufeffmark soft\u00adhyphen no\u00a0break",
    "<|endoftext|>",
    "a red <|endoftext|> house <|startoftext|> now",
    "<|ENDOFTEXT|> <|endoftext| >",
    "((a house:1.3)), [tree], {cat|dog}, masterpiece -- best_quality; 50% & #1 @ $5 ^_^ ~`\\/",
    "........ !!!??? ----- ''' \"\"\"",
    "!",
    "\u00b2\u00b3\u00bd \u2167 \u0665 \u4e09 \ufb01ne \uff21\uff22\uff23",
    "a" * 200,
    "\x00\x07control\x1b[0m \x7f",
    "\U00010348 \U0001d4d0 \ufffd \ue000",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    " ".join(["house"] * 74),
    " ".join(["house"] * 75),
    " ".join(["house"] * 76),
    WORDS * 6,
    "\u7ea2\u8272\u7684\u623f\u5b50" * 30,
    "it's " * 60 + "the end, of 2026!",
]


def make():
    tokenizer = CLIPTokenizer.from_pretrained(DEMO / "tokenizer")
    write_json("tokens.json", {"cases": [case(tokenizer, prompt) for prompt in PROMPTS]})


def case(tokenizer, prompt):
    ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    whole = tokenizer(prompt, padding="longest", return_tensors="pt").input_ids
    removed = None
    if whole.shape[-1] >= ids.shape[-1] and not torch.equal(ids, whole):
        removed = tokenizer.batch_decode(whole[:, 76:-1])[0]
    return {"prompt": prompt, "ids": ids[0].tolist(), "removed": removed}
