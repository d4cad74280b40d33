// Tells callers which services are down mesh-wide, and that they are up again.

import type { Clock } from '../clock.js';
import type { Logger } from '../log.js';
import { serviceOfHost } from '../registry/counts.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import { downOf, upOf } from './directives.js';
import { DownTable } from './down.js';
import type { Learner } from './learner.js';
import { effectiveMode, type Controls } from './modes.js';
import { withScopes } from './policy.js';
import type { PolicySource } from './policy-source.js';
import type { Proxies } from './proxies.js';

/** DOWN holds this long, ms, and is renewed this often. */
const TTL_MS = 10_000;
const RENEW_MS = 5000;

export interface MeshDownParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly registry: Registry;
  readonly learner: Learner;
  readonly policy: PolicySource;
  readonly controls: Controls;
  readonly proxies: Proxies;
}

export class MeshDown {
  private readonly table = new DownTable();
  private renewedMs = 0;

  constructor(private readonly parts: MeshDownParts) {}

  /** Services that are down now, by host name. */
  get now(): string[] {
    return this.table.down();
  }

  /** Calls of one life to a callee that ended. */
  note(life: Life, callee: string, calls: number, failures: number): void {
    if (callee === '') return;
    this.table.note(callee, life.cuid, life.workload, calls, failures, this.parts.clock.monotonicMs());
  }

  tick(nowMs: number): void {
    const { log, proxies } = this.parts;
    for (const { callee, down, evidence } of this.table.judge(nowMs)) {
      log.info({ callee, evidence }, down ? 'a service is down mesh-wide' : 'a service is up again');
      if (down) this.tell(callee);
      else for (const life of this.callersOf(callee)) proxies.send(life, upOf([callee], proxies.version()));
    }
    if (nowMs - this.renewedMs < RENEW_MS) return;
    this.renewedMs = nowMs;
    for (const callee of this.table.down()) this.tell(callee);
  }

  private tell(callee: string): void {
    const { policy, controls, learner, proxies, clock } = this.parts;
    const all = withScopes(policy.policy, controls);
    const mayTell = ({ service: caller }: Life): boolean => {
      const place = { kind: '', service: serviceOfHost(callee), caller };
      return effectiveMode(policy.policy.mode, all, place, clock.nowUs()) === 'enforce';
    };
    const told = this.callersOf(callee).filter(mayTell);
    if (told.length === 0) return;
    const spare = [...learner.all()]
      .flatMap(stats => stats.spare())
      .filter(edge => edge.destination === callee)
      .map((edge): [string, string] => [callee, edge.operation]);
    for (const life of told) proxies.send(life, downOf([callee], spare, proxies.version(), TTL_MS));
  }

  private callersOf(callee: string): Life[] {
    const { registry, proxies } = this.parts;
    const lives = this.table.reportersOf(callee).flatMap(cuid => registry.find(cuid) ?? []);
    return lives.filter(life => proxies.isOn(life));
  }
}
