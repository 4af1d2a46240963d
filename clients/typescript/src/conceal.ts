/** Takes values out of what a tool gives back, in the forms in which they usually turn up. */

import { inspect } from "node:util";
import { CONCEALED, Secret } from "./secret.js";

/** Knows values, and takes them out of anything. */
export class Concealer {
  readonly #values = new Set<string>();
  #forms: string[] = [];

  /** A value that must not be seen. */
  add(value: string): void {
    if (value === "" || this.#values.has(value)) return;
    this.#values.add(value);
    const forms = new Set([...this.#forms, ...formsOf(value)]);
    // The longest first: a value may be part of another.
    this.#forms = [...forms].sort((a, b) => b.length - a.length);
  }

  /** The text without the values. */
  text(text: string): string {
    return this.#forms.reduce((rest, form) => rest.replaceAll(form, CONCEALED), text);
  }

  /** A copy of anything without the values: plain data, with whatever else it was made plain too. */
  data(it: unknown, depth = 0): unknown {
    if (typeof it === "string") return this.text(it);
    if (typeof it === "number" || typeof it === "bigint") return this.#values.has(String(it)) ? CONCEALED : it;
    if (typeof it !== "object" || it === null) return typeof it === "function" ? undefined : it;
    if (depth > DEPTH_MAX) return CONCEALED;
    if (it instanceof Secret) return CONCEALED;
    if (it instanceof Error) return this.error(it);
    const next = (inner: unknown) => this.data(inner, depth + 1);
    if (ArrayBuffer.isView(it)) return this.#bytes(it);
    if (Array.isArray(it)) return it.map(next);
    if (it instanceof Map) return new Map([...it].map(([key, value]) => [next(key), next(value)]));
    if (it instanceof Set) return new Set([...it].map(next));
    if ("toJSON" in it && typeof it.toJSON === "function") return next(it.toJSON());
    return Object.fromEntries(Object.entries(it).map(([key, value]) => [this.text(key), next(value)]));
  }

  /** The error, or where a value shows in it, another one that says the same without. */
  error(error: unknown): unknown {
    const shown = inspect(error, { depth: DEPTH_MAX, showHidden: true, getters: true, maxStringLength: null });
    const json = error instanceof Error ? `${error.name}${error.message}${error.stack}` : "";
    if (this.text(shown) === shown && this.text(json) === json) return error;
    if (!(error instanceof Error)) return new Error(this.text(String(error)));
    const clean = new Error(this.text(error.message));
    clean.name = this.text(error.name);
    clean.stack = this.text(error.stack ?? "");
    return clean;
  }

  #bytes(view: ArrayBufferView): unknown {
    const bytes = Buffer.from(view.buffer, view.byteOffset, view.byteLength);
    return this.#forms.some((form) => bytes.includes(form)) ? CONCEALED : view;
  }
}

/** How a value may be written. */
function formsOf(value: string): string[] {
  const json = JSON.stringify(value).slice(1, -1);
  const percent = encodeURIComponent(value.toWellFormed());
  const form = new URLSearchParams([["", value]]).toString().slice(1);
  const bytes = Buffer.from(value);
  return [value, json, percent, form, bytes.toString("hex"), ...base64Of(bytes)];
}

/** In base64 by itself, and what is the same wherever in a longer text it begins: as in `user:password`. */
function base64Of(bytes: Buffer): string[] {
  const forms = [bytes.toString("base64").replace(/=+$/, ""), bytes.toString("base64url")];
  for (const before of [0, 1, 2]) {
    const text = Buffer.concat([Buffer.alloc(before), bytes])
      .toString("base64")
      .replace(/=+$/, "");
    // The first and the last group also depend on their neighbours.
    const own = text.slice(before === 0 ? 0 : 4, text.length - (text.length % 4 === 0 ? 0 : text.length % 4));
    forms.push(own, own.replaceAll("+", "-").replaceAll("/", "_"));
  }
  return forms.filter((form, at) => at < 2 || form.length >= INNER_MIN);
}

/** Shorter pieces stand in innocent texts too. */
const INNER_MIN = 8;
/** Deeper than any sensible answer. */
const DEPTH_MAX = 32;
