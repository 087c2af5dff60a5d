// CLIP's byte-pair tokenizer, from the tokenizer.json of an export: the ids of tf_groupvit.Tokenizer.

const SPACE = /\p{White_Space}+/gu;
const CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d";
const PIECES = RegExp(
  `<\\|startoftext\\|>|<\\|endoftext\\|>|${CONTRACTIONS}|\\p{L}+|\\p{N}|[^\\p{White_Space}\\p{L}\\p{N}]+`, "gu");
const PARTS = RegExp(`${CONTRACTIONS}|\\p{L}+|\\p{N}+|[^\\p{White_Space}\\p{L}\\p{N}]+`, "gu");

// The letter that stands for each of the 256 bytes: itself where it can be seen, else one from 256 on.
const LETTERS = [];
for (let byte = 0, next = 256; byte < 256; byte++) {
  const seen = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  LETTERS.push(String.fromCharCode(seen ? byte : next++));
}

// Letter by letter: a word's last sigma is one like others.
const normalized = (text) =>
  [...text.normalize("NFC").replace(SPACE, " ")].map((letter) => letter.toLowerCase()).join("");

export class Tokenizer {
  constructor({ model, added_tokens }) {
    this.vocabulary = new Map(Object.entries(model.vocab));
    this.ranks = new Map(model.merges.map((pair, rank) => [Array.isArray(pair) ? pair.join(" ") : pair, rank]));
    this.end = model.end_of_word_suffix ?? "</w>";
    this.unknown = this.vocabulary.get(model.unk_token);
    // Added tokens that are found in texts as they are, and those found after these; the longest first.
    const longest = added_tokens.sort((one, other) => other.content.length - one.content.length);
    this.added = [
      longest.filter((token) => !token.normalized),
      longest.filter((token) => token.normalized).map(({ id, content }) => ({ id, content: normalized(content) })),
    ];
    this.known = new Map();
  }

  // Ids of the words of a text, without start and end.
  encode(text) {
    return this.apart(text, this.added[0]).flatMap((raw) =>
      typeof raw === "number" ? [raw]
        : this.apart(normalized(raw), this.added[1]).flatMap((part) =>
          typeof part === "number" ? [part]
            : (part.match(PIECES) ?? []).flatMap((piece) => piece.match(PARTS).flatMap((word) => this.word(word)))));
  }

  // A text cut at the added tokens in it: texts, and the ids of what stood between them.
  apart(text, tokens) {
    const parts = [];
    for (let rest = text; rest;) {
      const places = tokens.map(({ content }) => rest.indexOf(content)).map((at) => (at < 0 ? rest.length : at));
      const at = Math.min(rest.length, ...places);
      if (at) parts.push(rest.slice(0, at));
      if (at === rest.length) break;
      const token = tokens[places.indexOf(at)];
      parts.push(token.id);
      rest = rest.slice(at + token.content.length);
    }
    return parts;
  }

  word(text) {
    if (!this.known.has(text)) {
      const parts = Array.from(new TextEncoder().encode(text), (byte) => LETTERS[byte]);
      parts.push(parts.pop() + this.end);
      for (;;) {
        const ranks = parts.slice(1).map((part, i) => this.ranks.get(`${parts[i]} ${part}`) ?? Infinity);
        const best = Math.min(...ranks);
        if (best === Infinity) break;
        const at = ranks.indexOf(best);
        parts.splice(at, 2, parts[at] + parts[at + 1]);
      }
      this.known.set(text, parts.map((part) => this.vocabulary.get(part) ?? this.unknown));
    }
    return this.known.get(text);
  }
}
