/**
 * Takes values out of what a tool gives back, in the forms in which they usually turn up.
 *
 * A second fence: a tool that encrypts a value, or spells it backwards, gets it past this one. A value of a few characters
 * stands in innocent texts too, and is found there as well.
 */

import { inspect } from "node:util";
import { CONCEALED, Secret } from "./secret.js";
import { type Form, formsOf, Index, type Span, Views } from "./spelling.js";

/** Knows values, its own and those of others, and takes them out of anything. */
export class Concealer {
  /** Each value, and how it may be written. */
  readonly #values = new Map<string, readonly Form[]>();
  readonly #others: readonly Concealer[];
  #index: Index | undefined;

  constructor(...others: readonly Concealer[]) {
    this.#others = others;
  }

  /** A value that must not be seen. One that is `lasting` is, where it is short, only found where it stands alone. */
  add(value: string, { lasting = false } = {}): void {
    if (value.trim() === "") return;
    this.#values.set(value, formsOf(value, lasting));
    this.#index = undefined;
  }

  /** No longer looks for a value. */
  forget(value: string): void {
    this.#values.delete(value);
    this.#index = undefined;
  }

  /** The text without the values. */
  text(text: string): string {
    const spans = [...this.#spans(text)].sort((one, other) => one.start - other.start);
    let [shown, end] = ["", 0];
    for (const span of spans) {
      if (span.end <= end) continue;
      // What overlaps is concealed once.
      if (span.start >= end) shown += text.slice(end, span.start) + CONCEALED;
      end = span.end;
    }
    return shown + text.slice(end);
  }

  /** A copy of anything without the values: plain data, with whatever else it was made plain too. Without values, itself. */
  data(it: unknown): unknown {
    return this.#isEmpty ? it : this.#copy(it, 0, new Map());
  }

  /** Whether a value shows in anything, hidden properties included. What is too large or deep to be sure does. */
  shows(it: unknown): boolean {
    return !this.#isEmpty && this.#shows(it, 0, new Set());
  }

  /** The error, or where a value shows in it, another one that says the same without. */
  error(error: unknown): unknown {
    if (!this.shows(error)) return error;
    if (!(error instanceof Error)) {
      return new Error(typeof error === "string" ? this.text(error) : "the tool threw something that shows a value");
    }
    const clean = new Error(this.text(String(error.message)));
    clean.name = this.text(String(error.name));
    clean.stack = this.text(String(error.stack ?? ""));
    return clean;
  }

  get #isEmpty(): boolean {
    return this.#values.size === 0 && this.#others.every((other) => other.#isEmpty);
  }

  #knows(value: string): boolean {
    return this.#values.has(value) || this.#others.some((other) => other.#knows(value));
  }

  *#spans(text: string, views = new Views(text)): Generator<Span> {
    this.#index ??= new Index([...this.#values.values()].flat());
    yield* this.#index.spans(views);
    for (const other of this.#others) yield* other.#spans(text, views);
  }

  #hides(text: string): boolean {
    return this.#spans(text).next().done === false;
  }

  #copy(it: unknown, depth: number, done: Map<object, unknown>): unknown {
    if (typeof it === "string") return this.text(it);
    if (typeof it === "number" || typeof it === "bigint") return this.#knows(String(it)) ? CONCEALED : it;
    if (typeof it !== "object" || it === null) return typeof it === "function" ? undefined : it;
    if (depth > DEPTH_MAX) return CONCEALED;
    if (done.has(it)) return done.get(it);
    // What leads back to itself ends here.
    done.set(it, CONCEALED);
    const copy = this.#copyOf(it, (inner) => this.#copy(inner, depth + 1, done));
    done.set(it, copy);
    return copy;
  }

  #copyOf(it: object, next: (inner: unknown) => unknown): unknown {
    if (it instanceof Secret) return CONCEALED;
    if (it instanceof Error) return this.error(it);
    if (it instanceof String || it instanceof Number || it instanceof BigInt) return next(it.valueOf());
    if (isBytes(it)) return this.#shows(it, 0, new Set()) ? CONCEALED : it;
    if (Array.isArray(it)) return it.map(next);
    if (it instanceof Map) return new Map([...it].map(([key, value]) => [next(key), next(value)]));
    if (it instanceof Set) return new Set([...it].map(next));
    if ("toJSON" in it && typeof it.toJSON === "function") return next(it.toJSON());
    return Object.fromEntries(Object.entries(it).map(([key, value]) => [this.text(key), next(value)]));
  }

  #shows(it: unknown, depth: number, seen: Set<object>): boolean {
    if (typeof it === "string") return this.#hides(it);
    if (typeof it === "symbol") return this.#hides(String(it));
    if (typeof it === "number" || typeof it === "bigint") return this.#knows(String(it));
    if ((typeof it !== "object" && typeof it !== "function") || it === null) return false;
    if (it instanceof Secret || seen.has(it)) return false;
    if (depth > DEPTH_MAX || seen.size > OBJECTS_MAX) return true;
    seen.add(it);
    const next = (inner: unknown) => this.#shows(inner, depth + 1, seen);
    if (isBytes(it)) return textsOf(it).some((text) => this.#hides(text));
    if (it instanceof Map && [...it].some(([key, value]) => next(key) || next(value))) return true;
    if (it instanceof Set && [...it].some(next)) return true;
    if (it instanceof Error && this.#hides(`${it.name} ${it.message} ${it.stack}`)) return true;
    // An object may show itself otherwise than by its properties.
    if (depth === 0 && this.#hides(inspected(it))) return true;
    if (Array.isArray(it)) return it.some(next);
    return Reflect.ownKeys(it).some((key) => next(key) || next(property(it, key)));
  }
}

function isBytes(it: object): it is ArrayBufferView | ArrayBufferLike {
  return ArrayBuffer.isView(it) || it instanceof ArrayBuffer || it instanceof SharedArrayBuffer;
}

/** What bytes may say. */
function textsOf(it: ArrayBufferView | ArrayBufferLike): string[] {
  const bytes = ArrayBuffer.isView(it) ? Buffer.from(it.buffer, it.byteOffset, it.byteLength) : Buffer.from(it);
  return [bytes.toString("utf8"), bytes.toString("utf16le")];
}

/** How an object shows itself, unless that fails. */
function inspected(it: object): string {
  try {
    return inspect(it, { depth: 8, showHidden: true, maxStringLength: null, maxArrayLength: null });
  } catch {
    return "";
  }
}

/** A property, unless its getter fails. */
function property(it: object, key: PropertyKey): unknown {
  try {
    return Reflect.get(it, key);
  } catch {
    return undefined;
  }
}

/** Deeper than any sensible answer. */
const DEPTH_MAX = 32;
const OBJECTS_MAX = 100_000;
