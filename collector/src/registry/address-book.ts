// Which lives ever had an address, by its text.

import { canonicalIp, type Holding } from './addresses.js';
import type { AddressSpan, Life } from './life.js';

/** Addresses of one life that are remembered; the oldest goes first. */
const ADDRESSES_MAX = 16;

/** Ports of one address that are remembered: the latest told. */
const PORTS_KEPT = 64;

export class AddressBook {
  private readonly byIp = new Map<string, Holding[]>();

  /** Everyone who had it, in the order in which they came. */
  of(ip: string): readonly Holding[] {
    return this.byIp.get(canonicalIp(ip)) ?? [];
  }

  /** The life has this address from now on. */
  add(life: Life, span: AddressSpan): void {
    if (!life.addresses.includes(span)) life.addresses.push(span);
    if (life.addresses.length > ADDRESSES_MAX) this.drop(life, life.addresses.shift()!);
    const holdings = this.byIp.get(span.ip);
    if (holdings === undefined) this.byIp.set(span.ip, [{ life, span }]);
    else holdings.push({ life, span });
  }

  /** The life was seen to listen on more ports. */
  addPorts(span: AddressSpan, ports: readonly number[]): void {
    span.ports = [...new Set([...span.ports, ...ports])].slice(-PORTS_KEPT);
  }

  remove(life: Life): void {
    for (const span of life.addresses) this.drop(life, span);
  }

  private drop(life: Life, span: AddressSpan): void {
    const left = (this.byIp.get(span.ip) ?? []).filter(holding => holding.life !== life || holding.span !== span);
    if (left.length > 0) this.byIp.set(span.ip, left);
    else this.byIp.delete(span.ip);
  }
}
