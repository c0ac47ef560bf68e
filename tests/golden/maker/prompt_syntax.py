"""A second reading of AUTOMATIC1111's prompt syntax, written from its description, for the goldens to be made with.

Characters are read one after the other, by recursive descent and with backtracking, where Easel builds its tree in one pass.
"""

NUMBER_CHARACTERS = set("0123456789.+-eE")


def parse(prompt, steps, negative=False):
    """The branches of a prompt: `weight`, `texts` (each a list of `[words, weight]` and `"BREAK"`), `of_step`."""
    branches = [(prompt, 1.0)] if negative else [branch_weight(part) for part in split_words(prompt, "AND")]
    return [branch(text, weight, steps) for text, weight in branches]


def branch(text, weight, steps):
    texts, of_step = [], []
    schedule = schedule_of(text, steps)
    for end, words in schedule:
        if words not in texts:
            texts.append(words)
    for step in range(steps):
        words = next(words for end, words in schedule if step <= end)
        of_step.append(texts.index(words))
    return {"weight": weight, "texts": [weigh(words) for words in texts], "of_step": of_step}


def split_words(text, word):
    """The parts between whole words `word`."""
    parts, start, at = [], 0, text.find(word)
    while at >= 0:
        end = at + len(word)
        if not joins(text[at - 1 : at]) and not joins(text[end : end + 1]):
            parts.append(text[start:at])
            start = end
        at = text.find(word, end)
    return [*parts, text[start:]]


def joins(character):
    return character.isalnum() or character == "_"


def branch_weight(text):
    text = text.rstrip()
    head, colon, tail = text.rpartition(":")
    digits = tail.strip().removeprefix("-") if tail.strip().startswith("-") else tail.strip().removeprefix("+")
    if colon and digits.replace(".", "", 1).isdecimal():
        return head.rstrip(), float(tail)
    return text, 1.0


# Editing.


def schedule_of(text, steps):
    """`[(last step that it holds for, text), …]`"""
    tree = read_all(text)
    if tree is None:
        return [(steps, text)]
    return [(end, text_at(tree, end, steps)) for end in sorted({steps, *ends(tree, steps)})]


def read_all(text):
    """The tree of a whole text: texts, `("edit", before, after, when)`, `("turns", options)`. None where the grammar has no word for it."""
    nodes, at = [], 0
    while at < len(text):
        found = read_node(text, at)
        if found:
            node, at = found
            nodes.extend(node)
        elif text[at] in "()[]:":
            nodes.append(text[at])
            at += 1
        else:
            return None
    return nodes


def read_node(text, at):
    """What begins at `at` and where it ends; None where nothing whole does."""
    character = text[at : at + 1]
    if character == "\\":
        return ([text[at : at + 2]], at + 2) if text[at + 1 : at + 2] not in ("", "\n") else None
    if character == "(":
        return read_round(text, at)
    if character == "[":
        return read_square(text, at)
    return ([character], at + 1) if character and character not in ")]:|" else None


def read_prompt(text, at):
    """As much as can stand inside brackets, and where it ends."""
    nodes = []
    while found := read_node(text, at):
        node, at = found
        nodes.extend(node)
    return nodes, at


def read_parts(text, at):
    """A bracket's parts and what separates them; None where it is not closed by its partner."""
    parts, separators, partner = [], [], {"(": ")", "[": "]"}[text[at]]
    while True:
        nodes, at = read_prompt(text, at + 1)
        parts.append(nodes)
        character = text[at : at + 1]
        if character == partner:
            return parts, separators, at + 1
        if character not in (":", "|"):
            return None
        separators.append(character)


def read_round(text, at):
    found = read_parts(text, at)
    if not found or found[1] not in ([], [":"]):
        return None
    parts, separators, end = found
    return [*"(", *parts[0], *(separators + parts[1] if separators else []), ")"], end


def read_square(text, at):
    found = read_parts(text, at)
    if not found:
        return None
    parts, separators, end = found
    if not separators:
        return ["[", *parts[0], "]"], end
    if set(separators) == {"|"}:
        return [("turns", parts)], end
    if separators in ([":"], [":", ":"]) and (when := number(parts[-1])) is not None:
        before = parts[0] if len(parts) == 3 else []
        return [("edit", before, parts[-2], when)], end
    return None


def number(nodes):
    text = "".join(nodes).strip() if all(isinstance(node, str) for node in nodes) else ""
    try:
        return (float(text), "." in text) if set(text) <= NUMBER_CHARACTERS else None
    except ValueError:
        return None


def last_step(when, steps):
    value, is_fraction = when
    return min(steps, int(value * steps if is_fraction else value))


def ends(tree, steps):
    for node in tree:
        if node[0] == "edit" and not isinstance(node, str):
            yield from (end for end in [last_step(node[3], steps)] if end > 0)
            yield from ends(node[1] + node[2], steps)
        elif node[0] == "turns" and not isinstance(node, str):
            yield from range(1, steps + 1)


def text_at(tree, step, steps):
    words = ""
    for node in tree:
        if isinstance(node, str):
            words += node
        elif node[0] == "edit":
            words += text_at(node[1] if step <= last_step(node[3], steps) else node[2], step, steps)
        else:
            words += text_at(node[1][(step - 1) % len(node[1])], step, steps)
    return words


# Weights.


def weigh(text):
    """`[[words, weight], …]` and `"BREAK"`; neighbours of one weight are one."""
    found, at = [], 0
    opened = {"(": [], "[": []}
    while at < len(text):
        character, weight = text[at], weight_at(text, at)
        if character == "\\":
            escaped = text[at + 1 : at + 2] if text[at + 1 : at + 2] in ("(", ")", "[", "]", "\\") else ""
            found.append([escaped, 1.0])
            at += 1 + len(escaped)
        elif character in opened:
            opened[character].append(len(found))
            at += 1
        elif weight and opened["("]:
            multiply(found, opened["("].pop(), float(weight[0]))
            at = weight[1]
        elif character == ")" and opened["("]:
            multiply(found, opened["("].pop(), 1.1)
            at += 1
        elif character == "]" and opened["["]:
            multiply(found, opened["["].pop(), 1 / 1.1)
            at += 1
        else:
            end = weight[1] if weight else at + 1
            while character not in ")]:" and end < len(text) and text[end] not in "\\()[]:":
                end += 1
            found.extend(pieces(text[at:end]))
            at = end
    for bracket, multiplier in (("(", 1.1), ("[", 1 / 1.1)):
        for start in opened[bracket]:
            multiply(found, start, multiplier)
    return merged(found)


def weight_at(text, at):
    """The number of `:number)` at a place, and where it ends."""
    close = text.find(")", at)
    number = text[at + 1 : close].strip()
    digits = number[1:] if number[:1] in ("+", "-") else number
    return (number, close + 1) if text[at] == ":" and close > 0 and digits and set(digits) <= set("0123456789.") else None


def pieces(run):
    parts = split_words(run, "BREAK")
    for index, part in enumerate(parts):
        if index:
            yield "BREAK"
            part = part.lstrip()
        yield [part.rstrip() if index + 1 < len(parts) else part, 1.0]


def multiply(found, start, multiplier):
    for piece in found[start:]:
        if piece != "BREAK":
            piece[1] *= multiplier


def merged(found):
    result = []
    for piece in found or [["", 1.0]]:
        if piece != "BREAK" and result and result[-1] != "BREAK" and result[-1][1] == piece[1]:
            result[-1][0] += piece[0]
        else:
            result.append(piece)
    return result
