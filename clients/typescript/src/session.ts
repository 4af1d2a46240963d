/**
 * Connections over HTTP/2: made when they are needed and again when they broke, and given up where the other end is silent.
 *
 * The transport's own keeper of connections stops listening to one before it is gone: what such a one says last then ends
 * the process. Here each is listened to for its whole life. And a process that had no time to read is not taken for a broker
 * that is silent. Time is measured by a clock that only goes forward.
 */

import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
} from "node:http2";
import type { Socket } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";
import { now } from "./bounds.js";

/** Keeps one connection, and those before it until their streams are over. */
export class Sessions {
  readonly authority: string;
  readonly #dial: () => Socket;
  readonly #all = new Set<Session>();
  #newest: Session | undefined;

  /** `dial` opens a socket, and throws where it cannot. */
  constructor(authority: string, dial: () => Socket) {
    this.authority = authority;
    this.#dial = dial;
  }

  /** Waits for a connection whose other end was heard from just now. */
  async ready(): Promise<void> {
    await this.#usable();
  }

  async request(method: string, path: string, headers: OutgoingHttpHeaders): Promise<ClientHttp2Stream> {
    for (;;) {
      const session = await this.#usable();
      try {
        return session.request({ ...headers, ":method": method, ":path": path });
      } catch (error) {
        // Closed just now: nothing was sent.
        if (session.isUsable) throw error;
      }
    }
  }

  notifyResponseByteRead(stream: ClientHttp2Stream): void {
    for (const session of this.#all) if (session.connection === stream.session) session.hear();
  }

  /** Waits until the other end has answered, or the connection is gone. */
  async probe(): Promise<void> {
    await this.#newest?.ping();
  }

  /** Cuts all connections. */
  abort(): void {
    for (const session of this.#all) session.cut(new ConnectError("connection aborted", Code.Canceled));
  }

  async #usable(): Promise<Session> {
    for (;;) {
      const isNew = this.#newest === undefined || !this.#newest.isUsable;
      const session = isNew ? this.#open() : (this.#newest as Session);
      await session.opened;
      if (isNew || (await session.isAlive())) return session;
    }
  }

  #open(): Session {
    const session = new Session(this.authority, this.#dial, () => this.#all.delete(session));
    this.#all.add(session);
    this.#newest = session;
    return session;
  }
}

/** One connection. */
class Session {
  readonly connection: ClientHttp2Session;
  /** Resolves when there is a connection, and rejects where there will be none. */
  readonly opened: Promise<void>;
  #streams = 0;
  #heardAt = now();
  #timer: NodeJS.Timeout | undefined;

  constructor(authority: string, dial: () => Socket, onClose: () => void) {
    const connection = connect(authority, { createConnection: dial });
    this.connection = connection;
    this.opened = new Promise((resolve, reject) => {
      connection.once("connect", () => resolve());
      // For its whole life: an error that nobody listens to ends the process.
      connection.on("error", reject);
      connection.once("close", () => reject(new ConnectError("the connection was closed", Code.Unavailable)));
    });
    // Somebody may have stopped waiting.
    this.opened.catch(() => {});
    connection.once("connect", () => this.#rest());
    connection.once("close", () => {
      clearTimeout(this.#timer);
      onClose();
    });
  }

  /** Whether it takes requests. One that the other end is closing does not. */
  get isUsable(): boolean {
    return !this.connection.closed && !this.connection.destroyed;
  }

  request(headers: OutgoingHttpHeaders): ClientHttp2Stream {
    const stream = this.connection.request(headers);
    // Whoever asked for it listens too, but a moment later.
    stream.on("error", () => {});
    stream.once("close", () => {
      this.#streams -= 1;
      if (this.#streams === 0 && !this.connection.destroyed) this.#rest();
    });
    this.#streams += 1;
    if (this.#streams === 1) this.#work();
    return stream;
  }

  /** The other end said something. */
  hear(): void {
    this.#heardAt = now();
  }

  /** Whether the other end is there: asks it, where it was silent for a while. */
  async isAlive(): Promise<boolean> {
    if (now() - this.#heardAt > KEEP_ALIVE_INTERVAL) await this.ping();
    return this.isUsable;
  }

  /** Waits until the other end has answered, or the connection is gone: soon so, where it does not answer. */
  async ping(): Promise<void> {
    if (this.connection.destroyed) return;
    await new Promise<void>((resolve) => {
      let isAnswered = false;
      const decide = () => {
        if (!isAnswered) this.cut(new ConnectError("the broker went silent", Code.Unavailable));
      };
      // An answer may be here, and nobody had the time to read it: what was received is read before an immediate runs.
      const timer = setTimeout(() => setImmediate(decide), KEEP_ALIVE_MAX).unref();
      // It is told too where the connection ends before the answer.
      this.connection.ping((error) => {
        isAnswered = true;
        clearTimeout(timer);
        if (error === null) this.hear();
        resolve();
      });
    });
  }

  cut(why: ConnectError): void {
    this.connection.destroy(why, constants.NGHTTP2_CANCEL);
  }

  /** Streams keep the process running, and are not left to a silent network. */
  #work(): void {
    this.connection.ref();
    clearTimeout(this.#timer);
    const next = () => {
      this.#timer = setTimeout(async () => {
        await this.ping();
        if (this.#streams > 0 && !this.connection.destroyed) next();
      }, KEEP_ALIVE_INTERVAL).unref();
    };
    next();
  }

  /** Without streams it keeps no process, and is closed after a while. */
  #rest(): void {
    this.connection.unref();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.connection.close(), IDLE_MAX).unref();
  }
}

/**
 * A broker that vanished without a word is noticed after these two together. The broker gives up on a silent network
 * after 2 to 4 s, so that no handle is shown for more than a second after it died.
 */
const KEEP_ALIVE_INTERVAL = 1000;
const KEEP_ALIVE_MAX = 2000;
const IDLE_MAX = 15 * 60_000;
