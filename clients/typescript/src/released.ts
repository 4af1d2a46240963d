/** The values that were put into tools: a tool may keep one, and show it in a later answer. */

import { now } from "./bounds.js";
import { Concealer } from "./conceal.js";

/** Remembers values for an hour, but no more than so many: the oldest go. */
export class Released {
  readonly #known = new Concealer();
  /** Each value, the one that was put in last at the end, and when that was. */
  readonly #times = new Map<string, number>();
  #size = 0;

  add(value: string): void {
    this.#forget(value);
    this.#times.set(value, now());
    this.#size += value.length;
    this.#known.add(value, { lasting: true });
    this.#prune();
  }

  /** What knows the values that are remembered now. */
  get known(): Concealer {
    this.#prune();
    return this.#known;
  }

  #prune(): void {
    for (const [value, since] of this.#times) {
      const isOver = this.#times.size > VALUES_MAX || this.#size > SIZE_MAX || now() - since > TIME_MAX;
      if (!isOver) return;
      this.#forget(value);
    }
  }

  #forget(value: string): void {
    if (!this.#times.delete(value)) return;
    this.#size -= value.length;
    this.#known.forget(value);
  }
}

const VALUES_MAX = 256;
/** In characters: a few dozen keys. A value that is larger alone is concealed for its own call. */
const SIZE_MAX = 256 * 1024;
const TIME_MAX = 3_600_000;
