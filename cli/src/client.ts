// Asking the collector. Answers are proto3 JSON: what `-o json` prints is what tables are made from.

import { makeClientConstructor, status as Code, type Metadata, type ServiceError } from '@grpc/grpc-js';
import { toJson } from '../../collector/src/http/json.js';
import { service } from '../../collector/src/rpc/protos.js';
import { STALE_METADATA } from '../../collector/src/rpc/stale.js';
import { CliError, couldNotAsk, EXIT, problem, wrongUse } from './errors.js';
import { securityOf, type Security } from './security.js';

export const DEFAULT_COLLECTOR = '127.0.0.1:50051';

/** A question that is not answered after this long is given up, ms. */
const DEADLINE_MS = 10_000;

/** An answer may be this big, bytes: a page of a thousand instances is about one MiB. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;

/** Items asked for at once. */
const PAGE_SIZE = 1000;

type Json = Readonly<Record<string, unknown>>;
type Name = 'Registry' | 'Transactions' | 'Rollback';

interface Stub {
  makeUnaryRequest(
    path: string,
    serialize: (value: object) => Buffer,
    deserialize: (bytes: Buffer) => object,
    request: object,
    metadata: Metadata,
    options: object,
    done: (error: ServiceError | null, answer?: object) => void,
  ): { on(event: 'metadata', told: (metadata: Metadata) => void): unknown };
  makeServerStreamRequest(
    path: string,
    serialize: (value: object) => Buffer,
    deserialize: (bytes: Buffer) => object,
    request: object,
    metadata: Metadata,
  ): AsyncIterable<object> & {
    cancel(): void;
    on(event: 'metadata', told: (metadata: Metadata) => void): unknown;
  };
  close(): void;
}

export class Client {
  private readonly stubs = new Map<Name, Stub>();

  /** @param address HOST:PORT */
  constructor(
    readonly address: string,
    private readonly security: Security = securityOf(address, {}, {}),
    /** Told when an answer is out of date, and by how much. */
    private readonly onStale: (ms: number) => void = () => undefined,
  ) {}

  /** @throws CliError that says what went wrong and what to do */
  async ask<T>(name: Name, method: string, request: object): Promise<T> {
    const definition = methodOf(name, method);
    try {
      const answer = await new Promise<object>((resolve, reject) => {
        const { path, requestSerialize, responseDeserialize } = definition;
        const options = { deadline: Date.now() + DEADLINE_MS };
        const call = this.stub(name).makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request,
          this.security.metadata,
          options,
          (error, value) => (error === null ? resolve(value!) : reject(error)),
        );
        call.on('metadata', metadata => this.noteStale(metadata));
      });
      return toJson(definition.answer, answer as Json) as T;
    } catch (error) {
      throw this.explained(error as ServiceError);
    }
  }

  /** Each message as it comes, until the collector ends the stream. */
  async *follow<T>(name: Name, method: string, request: object): AsyncGenerator<T> {
    const { path, requestSerialize, responseDeserialize, answer } = methodOf(name, method);
    const stub = this.stub(name);
    const { metadata } = this.security;
    const stream = stub.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request, metadata);
    stream.on('metadata', told => this.noteStale(told));
    try {
      for await (const message of stream) yield toJson(answer, message as Json) as T;
    } catch (error) {
      throw this.explained(error as ServiceError);
    } finally {
      stream.cancel();
    }
    throw couldNotAsk(`the collector at ${this.address} ended the stream; run the command again to go on`);
  }

  /** Items of a list, page by page, `limit` at most. `more`: there would be others. */
  async list<T>(
    name: Name,
    method: string,
    field: string,
    request: object,
    limit = Number.POSITIVE_INFINITY,
  ): Promise<{ items: T[]; more: boolean; last: Json }> {
    const items: T[] = [];
    let pageToken = '';
    for (;;) {
      const pageSize = Math.min(PAGE_SIZE, limit - items.length);
      const page = await this.ask<Json>(name, method, { ...request, pageSize, pageToken });
      items.push(...(page[field] as T[]));
      pageToken = page['nextPageToken'] as string;
      if (pageToken === '' || items.length >= limit) return { items, more: pageToken !== '', last: page };
    }
  }

  close(): void {
    for (const stub of this.stubs.values()) stub.close();
  }

  private noteStale(metadata: Metadata): void {
    const ms = Number(metadata.get(STALE_METADATA)[0] ?? 0);
    if (ms > 0) this.onStale(ms);
  }

  private stub(name: Name): Stub {
    let stub = this.stubs.get(name);
    if (stub === undefined) {
      const Constructor = makeClientConstructor(service(name), name);
      const loopback = /^(localhost|127\.|\[::1\])/.test(this.address);
      stub = new Constructor(this.address, this.security.channel, {
        'grpc.max_receive_message_length': ANSWER_BYTES_MAX,
        ...(loopback ? { 'grpc.enable_http_proxy': 0 } : {}),
      });
      this.stubs.set(name, stub);
    }
    return stub;
  }

  /** What a gRPC failure means for whoever typed the command. */
  private explained(error: ServiceError): Error {
    if (error instanceof CliError || typeof error.code !== 'number') return error;
    const details = error.details || error.message;
    if (error.code === Code.NOT_FOUND) return problem(details);
    if (error.code === Code.INVALID_ARGUMENT) return wrongUse(details);
    const [cause, remedy] = causeOf(error, details, this.security);
    return new CliError(EXIT.COULD_NOT_ASK, `could not ask the collector at ${this.address}: ${cause}; ${remedy}`);
  }
}

const START = 'start one with `meshpulse collector`, or name another with --collector HOST:PORT or MESHPULSE_COLLECTOR';

function causeOf(error: ServiceError, details: string, security: Security): [cause: string, remedy: string] {
  if (details.includes('ECONNREFUSED')) return ['nothing listens there', START];
  if (/ENOTFOUND|EAI_AGAIN|Name resolution failed/.test(details)) return ['the name is not known', 'check --collector'];
  switch (error.code) {
    case Code.DEADLINE_EXCEEDED:
      return [`no answer within ${DEADLINE_MS / 1000} s`, 'check that it is reachable and not overloaded'];
    case Code.UNIMPLEMENTED:
      return ['it does not know this question', 'check that it is a meshpulse collector, and of this version'];
    case Code.RESOURCE_EXHAUSTED:
      return [details, 'try again a little later'];
    case Code.UNAUTHENTICATED:
      if (security.hasToken) return [details, 'check the token of --token-file or MESHPULSE_TOKEN'];
      if (security.hasCertificate) return [details, 'check --cert'];
      return [details, 'give a token by --token-file or MESHPULSE_TOKEN, or a certificate by --cert and --key'];
    case Code.PERMISSION_DENIED:
      return [details, 'ask whoever runs it for a role that may, or bring another token or certificate'];
    case Code.UNAVAILABLE:
      return unavailable(details.replace(/^.*Last error: /, ''), security);
    default:
      return [details, 'its log says more'];
  }
}

function unavailable(details: string, { tls }: Security): [cause: string, remedy: string] {
  if (/wrong version number|packet length too long|EPROTO/i.test(details)) {
    return ['it does not speak TLS', 'give --plaintext if it is meant to be asked in the clear'];
  }
  if (/self.signed|unable to (?:get|verify)|certificate/i.test(details)) {
    return [`its certificate is not trusted (${details})`, 'give the CA that signed it by --ca'];
  }
  const remedy = 'check the address and that a collector listens there';
  return [details, tls ? remedy : `${remedy}; if it speaks TLS, give --ca`];
}

interface Method {
  readonly path: string;
  readonly requestSerialize: (value: object) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => object;
  readonly answer: string;
}

function methodOf(name: Name, method: string): Method {
  const definition = service(name)[method] as unknown as Method & { responseType: { type: { name: string } } };
  const { path, requestSerialize, responseDeserialize, responseType } = definition;
  return { path, requestSerialize, responseDeserialize, answer: responseType.type.name };
}

/** The address from the option, the environment, or the default. @throws CliError */
export function collectorAddress(option: string | undefined, env: NodeJS.ProcessEnv): string {
  const fromEnv = env['MESHPULSE_COLLECTOR'];
  const [text, where] =
    option !== undefined ? [option, '--collector'] : [fromEnv === '' ? undefined : fromEnv, 'MESHPULSE_COLLECTOR'];
  if (text === undefined) return DEFAULT_COLLECTOR;
  const port = /^(?:\[[0-9a-fA-F:.]+\]|[^\s:/[\]]+):(\d{1,5})$/.exec(text)?.[1];
  if (port === undefined || Number(port) < 1 || Number(port) > 65_535) {
    throw wrongUse(`${where} is "${text}", must be HOST:PORT, like ${DEFAULT_COLLECTOR}`);
  }
  return text;
}
