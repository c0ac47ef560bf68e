"""A small vocabulary in CLIP's format: every byte, every byte at a word's end, a few merges, and the two special tokens."""

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ["a", "red", "house", "blue", "cat", "tree", "star", "the", "in", "on", "with", "sky", "ugly", "'s"]


def vocabulary():
    """The tokens with their ids ("!" is 0, as in CLIP's own) and the merges, the first first."""
    letters = [byte for byte, _ in sorted(byte_letters().items(), key=lambda entry: entry[1])]
    merges = word_merges()
    tokens = letters + [f"{letter}</w>" for letter in letters]
    tokens += [left + right for left, right in merges] + [BEGIN, END]
    return {token: index for index, token in enumerate(tokens)}, merges


def byte_letters():
    """GPT-2's printable letter for each byte, with its place in CLIP's vocabulary: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    return {letter: index for index, letter in enumerate(letters)}


def word_merges():
    """Merges that make each of the words one token, from the left."""
    merges = []
    for word in WORDS:
        parts = list(word[:-1]) + [f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in merges:
                merges.append(pair)
            parts = [parts[0] + parts[1], *parts[2:]]
    return merges
