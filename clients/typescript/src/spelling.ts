/** How a value may be written, and where it is in a text. */

/** A spelling of a value. */
export interface Form {
  readonly text: string;
  /** What does not count when it is looked for. */
  readonly spelling: Spelling;
  /** Whether white space in it does not count: it is long enough for that. */
  readonly isTight: boolean;
  /** Whether letters and digits beside it make it something else. */
  readonly isAlone: boolean;
}

/** A piece of a text. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

type Spelling = "plain" | "hex" | "base64";

/** The spellings of a value. One that is `lasting` has, where it is short, the plain ones only, standing alone. */
export function formsOf(value: string, lasting: boolean): Form[] {
  const isShort = lasting && value.length < SHORT;
  const lines = value.split(/[\r\n]+/).map((line) => line.trim());
  // A key is also shown line by line. What stands around it is no secret.
  const own = lines.length < 2 ? [] : lines.filter((line) => line.length >= TIGHT && !line.startsWith("-----"));
  const forms = new Map<string, Form>();
  for (const text of new Set([value, value.trim(), ...own])) {
    for (const [spelling, texts] of spellings(text, isShort)) {
      for (const spelled of texts) {
        const tight = spelled.replace(SPACE, "");
        const isTight = tight.length >= TIGHT;
        const form = { text: isTight ? tight : spelled, spelling, isTight, isAlone: isShort };
        if (form.text !== "") forms.set(`${spelling} ${form.text}`, form);
      }
    }
  }
  return [...forms.values()];
}

/** Many spellings, which are found at once: by how they begin. */
export class Index {
  /** Those that are looked for in the same view, by their first characters. */
  readonly #groups = new Map<string, { readonly some: Form; readonly starts: Map<string, Form[]> }>();

  constructor(forms: Iterable<Form>) {
    for (const form of forms) {
      const length = Math.min(form.text.length, START);
      const name = `${form.spelling} ${form.isTight} ${length}`;
      const group = this.#groups.get(name) ?? { some: form, starts: new Map<string, Form[]>() };
      this.#groups.set(name, group);
      const start = form.text.slice(0, length);
      group.starts.set(start, [...(group.starts.get(start) ?? []), form]);
    }
  }

  /** Where any of them is. */
  *spans(views: Views): Generator<Span> {
    for (const { some, starts } of this.#groups.values()) {
      const view = views.view(some.spelling, some.isTight);
      const length = Math.min(some.text.length, START);
      for (let at = 0; at + length <= view.length; at += 1) {
        for (const form of starts.get(view.slice(at, at + length)) ?? []) {
          const span = view.startsWith(form.text, at) ? views.span(form, at) : undefined;
          if (span !== undefined) yield span;
        }
      }
    }
  }
}

/** A text, as each spelling is looked for in it. */
export class Views {
  readonly #views = new Map<string, string>();
  readonly #text: string;
  #tight: { readonly text: string; readonly at: Uint32Array } | undefined;

  constructor(text: string) {
    this.#text = text;
  }

  /** The text as this spelling is looked for in it. */
  view(spelling: Spelling, isTight: boolean): string {
    const name = `${spelling} ${isTight}`;
    const text = this.#views.get(name) ?? FOLDS[spelling](isTight ? this.#squeezed().text : this.#text);
    this.#views.set(name, text);
    return text;
  }

  /** Where in the text that is which is written so in its view; nowhere, if something beside it makes it something else. */
  span({ text, spelling, isTight, isAlone }: Form, at: number): Span | undefined {
    const [first, last] = [this.#position(at, isTight), this.#position(at + text.length - 1, isTight)];
    const [before, after] = [this.#text.charAt(first - 1), this.#text.charAt(last + 1)];
    if (isAlone && (WORD.test(before) || WORD.test(after))) return undefined;
    // The characters of base64 beside it hold the rest of its bits.
    const isWider = (beside: string) => spelling === "base64" && BASE64.test(beside);
    return { start: first - (isWider(before) ? 1 : 0), end: last + 1 + (isWider(after) ? 1 : 0) };
  }

  #position(at: number, isTight: boolean): number {
    return isTight ? (this.#squeezed().at[at] ?? 0) : at;
  }

  /** Without white space, and where each of its characters stands. */
  #squeezed() {
    if (this.#tight !== undefined) return this.#tight;
    const at = new Uint32Array(this.#text.length);
    let [text, from] = ["", 0];
    const keep = (to: number) => {
      for (let index = from; index < to; index += 1) at[text.length + index - from] = index;
      text += this.#text.slice(from, to);
    };
    for (const { 0: space, index } of this.#text.matchAll(SPACE)) {
      keep(index);
      from = index + space.length;
    }
    keep(this.#text.length);
    this.#tight = { text, at };
    return this.#tight;
  }
}

function spellings(text: string, isShort: boolean): [Spelling, string[]][] {
  const json = JSON.stringify(text).slice(1, -1);
  const plain = [text, json, ...htmlOf(text)];
  const whole = text.toWellFormed();
  const strict = encodeURIComponent(whole).replace(/[!'()*]/g, (it) => `%${it.charCodeAt(0).toString(16)}`);
  const percent = [
    encodeURIComponent(whole),
    encodeURI(whole),
    strict,
    strict.replace(/%2F/g, "/"),
    new URLSearchParams([["", text]]).toString().slice(1),
  ];
  const ascii = json.replace(/[^ -~]/g, (it) => `\\u${it.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const bytes = Buffer.from(text);
  const isEncoded = bytes.length >= ENCODED_MIN && !isShort;
  const hex = [...percent, ascii].filter((it) => it !== text).concat(isEncoded ? [bytes.toString("hex")] : []);
  return [
    ["plain", plain],
    ["hex", hex.map(FOLDS.hex)],
    ["base64", isEncoded ? [0, 1, 2].map((before) => base64Of(bytes, before)) : []],
  ];
}

function htmlOf(text: string): string[] {
  const some = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const quoted = some.replaceAll('"', "&quot;");
  return [some, quoted, quoted.replaceAll("'", "&#39;"), quoted.replaceAll("'", "&#x27;")];
}

/** The characters that depend on the value alone where it begins so many bytes into what is encoded, as `user:password`. */
function base64Of(bytes: Buffer, before: number): string {
  const text = Buffer.concat([Buffer.alloc(before), bytes]).toString("base64");
  return text.slice(Math.ceil((before * 8) / 6), Math.floor(((before + bytes.length) * 8) / 6));
}

/** What each spelling leaves open. The length stays. */
const FOLDS: Readonly<Record<Spelling, (text: string) => string>> = {
  plain: (text) => text,
  hex: (text) => text.replace(/[A-F]+/g, (letters) => letters.toLowerCase()),
  base64: (text) => text.replaceAll("-", "+").replaceAll("_", "/"),
};
/** White space, also as JSON writes it, and the backslash that some put before a slash. */
const SPACE = /(?:\s|\\[nrt]|\\(?=\/))+/g;
const WORD = /[\p{L}\p{N}]/u;
const BASE64 = /[A-Za-z0-9+/_-]/;
/** How many characters tell most spellings apart. */
const START = 6;
/** So long that nothing else is written so, with or without white space. */
const TIGHT = 16;
/** Shorter ones stand in innocent texts too. */
const SHORT = 6;
/** In bytes. What is encoded of shorter ones is found in half of all text, and says nothing. */
const ENCODED_MIN = 4;
