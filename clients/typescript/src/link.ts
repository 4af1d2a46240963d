/** The connection: where a token may travel, who the other end is, and how a dead peer is noticed. */

import { type OutgoingHttpHeaders, sensitiveHeaders } from "node:http2";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import type { Address } from "./address.js";
import { bearer, type Credentials, isRenewable, tlsFiles } from "./credentials.js";
import { ConfigurationError, NoBrokerError, UnavailableError, type ValetkeyError } from "./errors.js";
import { Sessions } from "./session.js";
import { shown } from "./shown.js";
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
    this.#sessions = new DiscreetSessions(address.origin, () => this.#dial());
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
    try {
      await this.#sessions.ready();
    } catch (error) {
      throw this.#unreachable(this.#dialError ?? error);
    }
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
      // For its whole life: an error that nobody listens to ends the process.
      socket.on("error", (error) => {
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
      `what listens at \`${shown(this.#address.origin)}\` does not answer as a broker (${why}); one with TLS has an address that ` +
        "begins with `https://`",
    );
  }

  #unreachable(error: unknown): ValetkeyError {
    if (error instanceof ConfigurationError) return error;
    const { origin } = this.#address;
    const where = this.#address.kind === "unix" ? `unix:${shown(this.#address.path)}` : shown(origin);
    const why = shown(printable(error instanceof Error ? error.message : String(error)));
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

/** Connections whose secret headers stay out of the tables of their compression, here and in every proxy. */
class DiscreetSessions extends Sessions {
  override async request(method: string, path: string, headers: OutgoingHttpHeaders) {
    return await super.request(method, path, { ...headers, [sensitiveHeaders]: SECRET_HEADERS });
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
/** The broker takes no more either. */
const MESSAGE_MAX = 1024 * 1024;
