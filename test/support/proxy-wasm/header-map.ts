/**
 * Envoy's header map, as far as a filter can tell.
 *
 * One list; names that start with `:` form a block in front, everything else keeps the order of insertion.
 * *Inline* names (a fixed set) exist once: adding a second value joins it to the first. `host` is another
 * name of `:authority`. Setting a name that is not inline removes it and appends it at the end, which is
 * why a filter that wants an order must rebuild the whole map.
 */
import { lowerAscii } from './bytes.js';
import type { Pair } from './pairs.js';

const INLINE_BOTH = [
  ...['connection', 'content-type', 'x-envoy-decorator-operation', 'keep-alive', 'proxy-connection', 'x-request-id'],
  ...['transfer-encoding', 'upgrade', 'via', 'content-length', 'x-envoy-attempt-count'],
];

const INLINE_REQUEST = [
  ...[':authority', ':method', ':path', ':scheme', ':protocol', 'expect', 'grpc-timeout', 'te', 'user-agent'],
  ...['x-client-trace-id', 'x-envoy-downstream-service-cluster', 'x-envoy-downstream-service-node'],
  ...['x-envoy-external-address', 'x-envoy-force-trace', 'x-envoy-hedge-on-per-try-timeout', 'x-envoy-internal'],
  ...['x-envoy-ip-tags', 'x-envoy-max-retries', 'x-envoy-original-path', 'x-envoy-original-url'],
  ...['x-envoy-retriable-header-names', 'x-envoy-retriable-status-codes', 'x-envoy-retry-grpc-on', 'x-envoy-retry-on'],
  ...['x-envoy-upstream-alt-stat-name', 'x-envoy-upstream-rq-per-try-timeout-ms', 'x-envoy-upstream-rq-timeout-ms'],
  ...['x-envoy-upstream-rq-timeout-alt-response', 'x-envoy-expected-rq-timeout-ms', 'x-envoy-is-timeout-retry'],
  ...['x-forwarded-client-cert', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-port', 'x-forwarded-proto'],
];

const INLINE_RESPONSE = [
  ...[':status', 'date', 'grpc-message', 'grpc-status', 'server', 'x-envoy-degraded'],
  ...['x-envoy-immediate-health-check-fail', 'x-envoy-ratelimited', 'x-envoy-upstream-canary'],
  ...['x-envoy-upstream-healthchecked-cluster', 'x-envoy-upstream-service-time'],
];

export type HeaderMapKind = 'request' | 'response' | 'other';

const INLINE: Readonly<Record<HeaderMapKind, ReadonlySet<string>>> = {
  request: new Set([...INLINE_BOTH, ...INLINE_REQUEST]),
  response: new Set([...INLINE_BOTH, ...INLINE_RESPONSE]),
  other: new Set(),
};

interface Entry {
  readonly name: string;
  value: string;
}

export class HeaderMap {
  private pseudo: Entry[] = [];
  private regular: Entry[] = [];
  private readonly inline = new Map<string, Entry>();
  private readonly inlineNames: ReadonlySet<string>;

  /**
   * @param kind   which names are inline
   * @param extra  further inline names: what a bootstrap's `inline_headers` registers
   */
  constructor(
    readonly kind: HeaderMapKind,
    pairs: readonly Pair[] = [],
    extra: readonly string[] = [],
  ) {
    this.inlineNames = extra.length === 0 ? INLINE[kind] : new Set([...INLINE[kind], ...extra]);
    for (const [name, value] of pairs) this.add(name, value);
  }

  get size(): number {
    return this.pseudo.length + this.regular.length;
  }

  /** Sum of name and value lengths. */
  byteSize(): number {
    let bytes = 0;
    for (const entry of this.pseudo) bytes += entry.name.length + entry.value.length;
    for (const entry of this.regular) bytes += entry.name.length + entry.value.length;
    return bytes;
  }

  pairs(): Pair[] {
    const result: Pair[] = [];
    for (const entry of this.pseudo) result.push([entry.name, entry.value]);
    for (const entry of this.regular) result.push([entry.name, entry.value]);
    return result;
  }

  /** The first value. */
  get(name: string): string | undefined {
    return this.find(this.key(name))?.value;
  }

  all(name: string): string[] {
    const key = this.key(name);
    return this.listOf(key)
      .filter(entry => entry.name === key)
      .map(entry => entry.value);
  }

  /** `addCopy`: appends, or joins to the one value of an inline name. */
  add(name: string, value: string): void {
    const key = this.key(name);
    if (!this.inlineNames.has(key)) {
      this.listOf(key).push({ name: key, value });
      return;
    }
    const present = this.inline.get(key);
    if (present !== undefined) {
      present.value = present.value === '' ? value : value === '' ? present.value : `${present.value},${value}`;
      return;
    }
    const entry = { name: key, value };
    this.inline.set(key, entry);
    this.listOf(key).push(entry);
  }

  /** `setCopy`: a name that is not inline moves to the end. */
  set(name: string, value: string): void {
    const present = this.inline.get(this.key(name));
    if (present !== undefined) {
      present.value = value;
      return;
    }
    this.remove(name);
    this.add(name, value);
  }

  remove(name: string): void {
    const key = this.key(name);
    this.inline.delete(key);
    if (key.startsWith(':')) this.pseudo = this.pseudo.filter(entry => entry.name !== key);
    else this.regular = this.regular.filter(entry => entry.name !== key);
  }

  /** `setHeaderMapPairs`: removes every present name, then adds pair by pair. */
  rebuild(pairs: readonly Pair[]): void {
    this.pseudo = [];
    this.regular = [];
    this.inline.clear();
    for (const [name, value] of pairs) this.add(name, value);
  }

  private key(name: string): string {
    const lower = lowerAscii(name);
    return lower === 'host' && this.kind === 'request' ? ':authority' : lower;
  }

  private listOf(key: string): Entry[] {
    return key.startsWith(':') ? this.pseudo : this.regular;
  }

  private find(key: string): Entry | undefined {
    return this.listOf(key).find(entry => entry.name === key);
  }
}
