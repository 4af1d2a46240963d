/** The connection: where a token may travel, who the other end is, and how a dead peer is noticed. */

import { constants, type Http2Session, sensitiveHeaders } from "node:http2";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { Address } from "./address.js";
import { bearer, type Credentials, isRenewable, tlsFiles } from "./credentials.js";
import { ConfigurationError, NoBrokerError, UnavailableError, type ValetkeyError } from "./errors.js";
import { errorOf, isBrokers, printable } from "./status.js";
import { VERSION } from "./version.js";

/** The header with the token of the person that a call is for. */
export const ON_BEHALF_OF = "x-valetkey-on-behalf-of";

/** How calls reach a broker. */
export interface Link {
  readonly transport: Transport;
  /** Whether a broker has ever answered here. */
  readonly wasReached: boolean;
  /** Whether the caller may show another token tomorrow. */
  readonly isRenewable: boolean;
  /** Waits for a connection. What it throws, no call was sent before. */
  ready(): Promise<void>;
  /** Waits until the other end has answered, or the connection is gone. */
  probe(): Promise<void>;
  /** Cuts the connection, and with it all streams. */
  close(): void;
}

/** A connection over HTTP/2, made when it is needed and again when it broke. */
export class Http2Link implements Link {
  readonly transport: Transport;
  readonly isRenewable: boolean;
  wasReached = false;
  readonly #address: Address;
  readonly #credentials: Credentials;
  readonly #sessions: Sessions;
  #dialError: unknown;

  constructor(address: Address, credentials: Credentials) {
    this.#address = address;
    this.#credentials = credentials;
    this.isRenewable = isRenewable(credentials);
    this.#sessions = new Sessions(
      address.origin,
      { pingIntervalMs: KEEP_ALIVE_INTERVAL, pingTimeoutMs: KEEP_ALIVE_LAST },
      { createConnection: () => this.#dial() },
    );
    this.transport = createGrpcTransport({
      baseUrl: address.origin,
      sessionManager: this.#sessions,
      interceptors: [this.#identify],
      acceptCompression: [],
      readMaxBytes: MESSAGE_MAX,
      writeMaxBytes: MESSAGE_MAX,
    });
  }

  async ready(): Promise<void> {
    if ((await this.#sessions.connect()) !== "error") return;
    throw this.#unreachable(this.#dialError ?? this.#sessions.error());
  }

  async probe(): Promise<void> {
    await this.#sessions.probe();
  }

  close(): void {
    this.#sessions.abort();
  }

  /** Says who calls, with the token as it is now. */
  readonly #identify: Interceptor = (next) => async (request) => {
    const token = bearer(this.#credentials);
    if (token !== undefined) request.header.set("authorization", `Bearer ${token}`);
    request.header.set("user-agent", `valetkey-typescript/${VERSION}`);
    try {
      const answer = await next(request);
      this.wasReached = true;
      return answer.stream ? { ...answer, message: this.#watched(answer.message) } : answer;
    } catch (error) {
      throw this.#named(error);
    }
  };

  /** The messages of a stream; what breaks it has a name of ours. */
  async *#watched<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* messages;
    } catch (error) {
      throw this.#named(error);
    }
  }

  #named(error: unknown): ValetkeyError {
    this.wasReached ||= isBrokers(error);
    // Since TLS 1.3 a broker refuses a client's certificate only after the handshake.
    if (tlsFault(this.#dialError) !== undefined) return this.#unreachable(this.#dialError);
    const named = errorOf(error);
    if (!this.wasReached) return this.#unknown(named);
    if (!(named instanceof NoBrokerError)) return named;
    // A broker that stops closes streams in ways that are no gRPC. What it refused to begin with is surely not done.
    const why = named.message.split(";")[0] ?? "";
    const nothingDone = why.includes("REFUSED_STREAM");
    return new UnavailableError(`the connection broke (${why}); try again later`, { nothingDone });
  }

  #dial(): Socket {
    this.#dialError = undefined;
    try {
      const socket = this.#open();
      const timer = setTimeout(() => socket.destroy(new Error("nobody answers within 5 s")), CONNECT_MAX);
      // Whoever waits for it has a timer of their own: a connection that nobody wants any more keeps no process.
      timer.unref();
      socket.unref();
      socket.once("error", (error) => {
        this.#dialError ??= error;
      });
      for (const event of [this.#address.kind === "tls" ? "secureConnect" : "connect", "close"]) {
        socket.once(event, () => clearTimeout(timer));
      }
      return socket;
    } catch (error) {
      this.#dialError = error;
      throw error;
    }
  }

  #open(): Socket {
    const address = this.#address;
    if (address.kind === "unix") return connectTcp(address.path);
    const { host, port } = address;
    if (address.kind === "plain") return connectTcp({ host, port, noDelay: true });
    // The files are read for each connection, so that renewed ones are used. It trusts nobody but `ca`, whatever the
    // environment says.
    const servername = isIP(host) ? {} : { servername: host };
    const files = tlsFiles(this.#credentials);
    return connectTls({ host, port, ...servername, ...files, ALPNProtocols: ["h2"], rejectUnauthorized: true });
  }

  /** Something listens there, but has never spoken as a broker does. */
  #unknown(error: ValetkeyError): ValetkeyError {
    if (!(error instanceof UnavailableError) || this.#address.kind !== "plain") return error;
    const why = error.message.split(";")[0];
    return new UnavailableError(
      `what listens at \`${this.#address.origin}\` does not answer as a broker (${why}); one with TLS has an address that ` +
        "begins with `https://`",
    );
  }

  #unreachable(error: unknown): ValetkeyError {
    if (error instanceof ConfigurationError) return error;
    const { origin } = this.#address;
    const where = this.#address.kind === "unix" ? `unix:${this.#address.path}` : origin;
    const why = printable(error instanceof Error ? error.message : String(error));
    if (tlsFault(error) !== undefined) {
      return new ConfigurationError(
        `no TLS with \`${where}\` (${why}); \`valetkey doctor --connect\` says which step fails`,
      );
    }
    return new UnavailableError(`no broker answers at \`${where}\` (${why}); is \`valetkey serve\` running there?`, {
      nothingDone: true,
    });
  }
}

/**
 * Connections whose secret headers stay out of the tables of their compression, here and in every proxy; and whose silence
 * is noticed, but not that of a process which had no time to listen.
 */
class Sessions extends Http2SessionManager {
  #newest: Http2Session | undefined;

  override async request(...[method, path, headers, options]: Parameters<Http2SessionManager["request"]>) {
    const stream = await super.request(method, path, { ...headers, [sensitiveHeaders]: SECRET_HEADERS }, options);
    if (stream.session !== this.#newest) this.#watch(stream.session);
    return stream;
  }

  #watch(session: Http2Session | undefined): void {
    this.#newest = session;
    if (session === undefined || session.destroyed) return;
    const timer = setInterval(() => {
      if (session.destroyed) return;
      let isAnswered = false;
      session.ping(() => {
        isAnswered = true;
      });
      const decide = () => {
        if (isAnswered || session.destroyed) return;
        const error = new ConnectError("the broker went silent", Code.Unavailable);
        session.destroy(error, constants.NGHTTP2_CANCEL);
      };
      // An answer may be here, and nobody had the time to read it: what was received is read before an immediate runs.
      setTimeout(() => setImmediate(decide), KEEP_ALIVE_MAX).unref();
    }, KEEP_ALIVE_INTERVAL);
    timer.unref();
    session.once("close", () => clearInterval(timer));
  }

  async probe(): Promise<void> {
    const session = this.#newest;
    if (session === undefined || session.closed || session.destroyed) return;
    // It is told too where the connection ends before the answer.
    await new Promise<void>((resolve) => session.ping(() => resolve()));
  }
}

/** What TLS says, where a failure is its. */
function tlsFault(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return TLS_FAULT.test(code) ? code : undefined;
}

/** How Node names what one side of a handshake has against the other. */
const TLS_FAULT = /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|INVALID_CA|HOSTNAME_MISMATCH|EPROTO)/;
/** Tokens: the caller's own, and that of the person it acts for. */
const SECRET_HEADERS = ["authorization", ON_BEHALF_OF];
const CONNECT_MAX = 5000;
/**
 * A broker that vanished without a word is noticed after these two together. The broker gives up on a silent network
 * after 2 to 4 s, so that no handle is shown for more than a second after it died.
 */
const KEEP_ALIVE_INTERVAL = 1000;
const KEEP_ALIVE_MAX = 2000;
/** Connect's own keep-alive, which cannot tell silence from a busy process, comes last. */
const KEEP_ALIVE_LAST = 10_000;
/** The broker takes no more either. */
const MESSAGE_MAX = 1024 * 1024;
