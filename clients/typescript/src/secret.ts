/** A value of the vault, which does not show itself. */

/** How `console.log` and `util.inspect` ask an object to show itself. */
const INSPECT = Symbol.for("nodejs.util.inspect.custom");

/** What stands where a value would. */
export const CONCEALED = "<concealed by valetkey>";

/**
 * A plaintext. `expose` is the only way to it: it prints as `<concealed by valetkey>`, in logs, templates and JSON too,
 * and a structured clone of it is empty.
 *
 * JavaScript cannot wipe a string from memory: keep what `expose` returns no longer than its use. The bytes behind it are
 * wiped by `wipe`, or at the end of a `using` block.
 */
export class Secret {
  #bytes: Uint8Array;

  /** Takes the bytes over: nobody else may keep them. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** The value as text. Throws a `TypeError`, without the value, where it is none; `exposeBytes` has it then. */
  expose(): string {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.#bytes);
    } catch {
      throw new TypeError("the value is no text; `exposeBytes` has it");
    }
  }

  /** A copy of the value, exactly as the vault holds it. */
  exposeBytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  /** Overwrites the value; it is empty from now on. */
  wipe(): void {
    this.#bytes.fill(0);
    this.#bytes = new Uint8Array(0);
  }

  [Symbol.dispose](): void {
    this.wipe();
  }

  toString(): string {
    return CONCEALED;
  }

  toJSON(): string {
    return CONCEALED;
  }

  [Symbol.toPrimitive](): string {
    return CONCEALED;
  }

  [INSPECT](): string {
    return CONCEALED;
  }

  get [Symbol.toStringTag](): string {
    return "Secret";
  }
}
