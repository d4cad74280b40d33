// What early rollback needs of the other replicas of the collector. `replicas/` meets it; alone there are none.

import type { Life } from '../registry/life.js';
import type { Delivery } from './watchers.js';
import type { VerdictRecord } from './verdicts.js';

export interface Peers {
  /** Others decide as well, so what is decided has to stand in the store before anyone is told. */
  readonly shared: boolean;
  /** Of this replica; '' = it is alone. */
  readonly id: string;
  /** False while others may have decided what is not known here: then nothing is. */
  isFresh(): boolean;
  /** Whether a duty, by its name, falls to this replica. */
  owns(name: string): boolean;
  /** Asks the proxies of other replicas for what they have not told yet. */
  ask(ids: Pick<VerdictRecord, 'keys' | 'requests'>, services: readonly string[]): void;
  /** A step is told: others tell their watchers, and the one that has the sidecar of `target` makes the callback. */
  deliver(delivery: Delivery, target: string): void;
  /** A life whose sidecar takes callbacks at another replica: this one, or the first of a service; undefined = none. */
  callbackElsewhere(cuid: string): Life | undefined;
  callbackOfService(service: string): Life | undefined;
  /** How many proxies of other replicas take directives. */
  proxiesElsewhere(): number;
  /** This replica has told so many proxies of a verdict. */
  told(id: string, proxies: number): void;
}

export const ALONE: Peers = {
  shared: false,
  id: '',
  isFresh: () => true,
  owns: () => true,
  ask: () => undefined,
  deliver: () => undefined,
  callbackElsewhere: () => undefined,
  callbackOfService: () => undefined,
  proxiesElsewhere: () => 0,
  told: () => undefined,
};
