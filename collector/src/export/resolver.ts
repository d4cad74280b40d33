// Names of sinks to addresses, each one checked when it is connected to: a name that was harmless at start may point
// elsewhere now.
//
// `getaddrinfo` is asked, because it knows the search domains of a cluster and /etc/hosts. It blocks one of the few
// threads that the process also reads and writes files with, so there is one question at a time, and an answer is kept
// for a while: slow DNS must not slow the store.

import { lookup, type LookupAddress, type LookupOptions } from 'node:dns';
import { addressFault } from './addresses.js';

/** How long addresses of a name are used, ms. */
const KEPT_MS = 5000;

/** Names remembered: one a sink. */
const NAMES_MAX = 64;

/** An address that may not be connected to. Trying again does not help until the name points elsewhere. */
export class AddressRefused extends Error {
  override readonly name = 'AddressRefused';
}

type Answer = (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void;

export type Ask = (host: string) => Promise<LookupAddress[]>;

export class Resolver {
  private readonly known = new Map<string, { readonly addresses: LookupAddress[]; readonly untilMs: number }>();
  /** Questions without an answer yet, by name: whoever wants the same waits for the same. */
  private readonly pending = new Map<string, Promise<LookupAddress[]>>();
  private asking: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly denyPrivate: boolean,
    private readonly ask: Ask = systemAsk,
  ) {}

  /** For the `lookup` option of a connection. Fails if any address of the name is refused. */
  readonly lookup = (host: string, options: LookupOptions, answer: Answer): void => {
    this.addressesOf(host).then(
      addresses => {
        const wanted = addresses.filter(({ family }) => !options.family || family === options.family);
        const first = wanted[0];
        if (first === undefined) answer(new Error(`${host} has no address of this family`), '');
        else if (options.all === true) answer(null, wanted);
        else answer(null, first.address, first.family);
      },
      (error: unknown) => answer(error as NodeJS.ErrnoException, ''),
    );
  };

  /** @throws AddressRefused when an address, or the one that a URL names, may not be connected to */
  check(host: string): void {
    const fault = addressFault(host, this.denyPrivate);
    if (fault !== undefined) throw new AddressRefused(`${host} is ${fault}`);
  }

  private async addressesOf(host: string): Promise<LookupAddress[]> {
    const kept = this.known.get(host);
    if (kept !== undefined && performance.now() < kept.untilMs) return kept.addresses;
    const addresses = await (this.pending.get(host) ?? this.question(host));
    for (const { address } of addresses) {
      const fault = addressFault(address, this.denyPrivate);
      if (fault !== undefined) throw new AddressRefused(`${host} resolves to ${address}, ${fault}`);
    }
    this.known.set(host, { addresses, untilMs: performance.now() + KEPT_MS });
    if (this.known.size > NAMES_MAX) this.known.delete(this.known.keys().next().value!);
    return addresses;
  }

  /** Asks when those before are answered. */
  private question(host: string): Promise<LookupAddress[]> {
    const asked = this.asking.then(() => this.ask(host)).finally(() => this.pending.delete(host));
    this.pending.set(host, asked);
    this.asking = asked.catch(() => undefined);
    return asked;
  }
}

function systemAsk(host: string): Promise<LookupAddress[]> {
  return new Promise((resolve, reject) => {
    lookup(host, { all: true }, (error, addresses) => (error === null ? resolve(addresses) : reject(error)));
  });
}
