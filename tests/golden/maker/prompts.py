"""`prompts.json` and `prompts.safetensors`: prompts in AUTOMATIC1111's syntax.

- json: for each prompt, its number of steps and whether it is a negative one, the `branches` that prompt_syntax.py reads:
  `weight`, `texts` (lists of `[words, weight]` and `"BREAK"`) and `of_step`.
- safetensors: `NAME.embeds` [L, hidden], of the prompt NAME of `EMBEDDED` with the demo model's text encoder, every eighth channel;
  `clip_skip.N`, the same of a short prompt for each `clip_skip`.
"""

import random

import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from . import prompt_syntax
from .paths import DEMO, GOLDEN, write_json

CHUNK, BACKTRACK = 75, 20
PROMPTS = [
    "", " ", "a red house", "an (important) word", "(unbalanced", "unbalanced)", "\\(literal\\]", "(unnecessary)(parens)",
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", "(a:-1) (b:.5) (c: 2 ) (d:1.)", "a\\b \\\\ \\: \\", "16:9, (x:y), (z:big)",
    "one BREAK two  BREAK three", "BREAKFAST aBREAK BREAK_", "BREAK", "(a BREAK b:1.3)", "cat AND dog", "cat :1.5 AND dog:-0.3 AND a bird",
    "CANDY AND\nSAND AND BRAND", "a cat:2", "a [b:3]", "a [b: 3 ]", "a [[[b]]:2]", "[(a:2):3]", "a [b : c : 1] d", "a[b:[c:d:2]:1]e",
    "a [unbalanced", "a [b:.5] c", "((a][:b:c [d:3]", "[a|(b:1.1)]", "[fe|]male", "[fe|||]male", "[a:b:0]", "[a::4]", "[:a:4]", "[a:b:1.0]",
    "[a:b:99]", "[a:b:c]", "[a|b:c:3]", "a|b [c:d:3]", "a\\[b:c:3\\] [d\\|e|f]", "([cat:dog:0.5]:1.4) in [[snow|rain]:sun:5]",
    "[x:y:2] AND [p|q] :0.5", "caf\u00e9 [\u7ea2:\u84dd:0.5]",
]
NEGATIVE = ["bad AND ugly", "bad:2", "[ugly:bad:0.25]"]
LONG = ", ".join(["a purple cat in the snow", "an orange boat at sunset", "a (teal:1.4) robot"] * 6)
EMBEDDED = {
    "weighted": "a (purple:1.4) cat in [the snow], ((sunset)) (house:-0.5)",
    "long": LONG,
    "no-comma": "a red house on a blue hill " * 14,
    "breaks": "a red house BREAK a (blue:0.6) hill BREAK",
}


def make():
    cases = [case(prompt, 8) for prompt in PROMPTS] + [case(prompt, 10, True) for prompt in NEGATIVE] + random_cases()
    write_json("prompts.json", {"cases": cases})
    save_file(embeddings(), GOLDEN / "prompts.safetensors")


def case(prompt, steps, negative=False):
    found = prompt_syntax.parse(prompt, steps, negative)
    return {"prompt": prompt, "steps": steps, "negative": negative, "branches": found}


def random_cases():
    """Prompts that nobody would write."""
    chance = random.Random(7)
    parts = ["a", "cat", " ", " BREAK ", ":1.3", ":", ":3", "|", "(", ")", "[", "]", "\\(", "(x:1.2)", "[b:c:3]", "[p|q]", "[z:.5]", " AND "]
    texts = ["".join(chance.choice(parts) for _ in range(chance.randint(2, 10))) for _ in range(150)]
    return [case(text, 7) for text in texts]


@torch.no_grad()
def embeddings():
    tokenizer = CLIPTokenizer.from_pretrained(DEMO / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(DEMO / "text_encoder", dtype=torch.float32).eval()
    tensors = {}
    for name, prompt in EMBEDDED.items():
        [text] = prompt_syntax.parse(prompt, 1)[0]["texts"]
        tensors[f"{name}.embeds"] = torch.cat([encode(encoder, tokenizer, chunk) for chunk in chunks(tokenizer, text)])
    for skip in range(1, encoder.config.num_hidden_layers + 1):
        tensors[f"clip_skip.{skip}"] = encode(encoder, tokenizer, chunks(tokenizer, [["a red house", 1.0]])[0], skip)
    return {name: tensor[:, ::8].contiguous() for name, tensor in tensors.items()}


def chunks(tokenizer, text):
    """Lists of at most 75 `(token, weight)`."""
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    done, chunk = [], []
    for piece in text:
        if piece == "BREAK":
            done, chunk = [*done, chunk], []
            continue
        for token in tokenizer(piece[0], add_special_tokens=False).input_ids:
            if len(chunk) == CHUNK:
                commas = [place for place, (other, _) in enumerate(chunk) if other == comma]
                near = token != comma and commas and CHUNK - commas[-1] <= BACKTRACK
                cut = commas[-1] + 1 if near else CHUNK
                done, chunk = [*done, chunk[:cut]], chunk[cut:]
            chunk.append((token, piece[1]))
    return [*done, chunk] if chunk or not done else done


def encode(encoder, tokenizer, chunk, clip_skip=1):
    ids = [tokenizer.bos_token_id, *(token for token, _ in chunk), tokenizer.eos_token_id]
    ids += [tokenizer.pad_token_id] * (CHUNK + 2 - len(ids))
    weights = torch.tensor([1.0, *(weight for _, weight in chunk)] + [1.0] * (CHUNK + 1 - len(chunk)))
    hidden = encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states[-clip_skip]
    hidden = encoder.final_layer_norm(hidden) if hasattr(encoder, "final_layer_norm") else encoder.text_model.final_layer_norm(hidden)
    weighted = hidden * weights[None, :, None]
    return (weighted * (hidden.mean() / weighted.mean()))[0]
