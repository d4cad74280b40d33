// Who exists: lives by CUID and alias, their addresses, leases, and what they last said of themselves.
//
// Everything here is the state of one collector, changed only by the calls below, each of which takes
// effect at once. Times are given by the clock; leases run on its monotonic side.

import { EventEmitter } from 'node:events';
import type { Clock } from '../clock.js';
import { Exhausted, InvalidArgument } from '../errors.js';
import type { Loss } from '../ingest/producers.js';
import type { Hello, Progress, Status } from '../ingest/report.js';
import { highest, type Told } from '../ingest/totals.js';
import type { StoredLife } from '../store/store.js';
import { AddressBook } from './address-book.js';
import { canonicalIp, sameNetwork, whoHad, type WhoHadAnswer } from './addresses.js';
import type { ClockOffset } from './clock-offset.js';
import { Expected, type Callee } from './expected.js';
import {
  eventsLostMax,
  fromStored,
  GONE_MS,
  identityOf,
  isConnected,
  JOBS_MAX,
  newLife,
  PROGRESS_MS,
  stateOf,
  type Life,
  type LifeState,
  type Transport,
} from './life.js';

export interface RegistryOptions {
  readonly clock: Clock;
  /** Ended lives are kept for this long, ms, and at most this many of them. */
  readonly retainMs: number;
  readonly retainMax: number;
  /** Lives that have not ended, at most; past it new ones are refused. */
  readonly instancesMax: number;
}

/** What a hello leads to. */
export interface Arrival {
  readonly life: Life;
  /** The life that had this proxy or address before, when this hello ended it. */
  readonly ended: readonly Life[];
  /** Producers of a former start of the same proxy, which will not come back. */
  readonly producersGone: readonly string[];
  /** What a known life had told of its filter before. */
  readonly told: Told | undefined;
}

/** A life from the store; `before`: what was known of it. */
export interface Restored {
  readonly before: (Told & { readonly endedUs: number | undefined }) | undefined;
  readonly now: Life;
}

/** How long a refused proxy should wait when the registry is full, ms. */
const FULL_RETRY_MS = 60_000;

/** Proxies that started longer ago than this by their own word are believed only this far back, ms. */
const BOOT_BEFORE_MS_MAX = 30 * 24 * 3_600_000;

interface RegistryEvents {
  /** A life appeared, changed what it shows, or ended. */
  changed: [Life];
  /** Here: what another replica ended is only `changed`. */
  ended: [Life];
  /** Given up too early, by this replica or another: it has not ended after all. */
  revived: [Life];
}

/** What another replica hears of a life. Ages in ms. */
export interface HeardElsewhere {
  readonly replica: string;
  readonly connected: boolean;
  readonly ageMs: number;
  readonly clock: ClockOffset;
  readonly status?: { readonly value: Status; readonly ageMs: number };
  readonly jobs: readonly { readonly progress: Progress; readonly ageMs: number }[];
}

export class Registry extends EventEmitter<RegistryEvents> {
  private readonly lives = new Map<string, Life>();
  private readonly aliases = new Map<string, Life>();
  private readonly byProxy = new Map<string, Life>();
  private readonly addresses = new AddressBook();
  private readonly active = new Set<Life>();
  /** Longest ended first. */
  private readonly ended = new Set<Life>();
  private readonly services = new Map<string, number>();
  private readonly clock: Clock;
  /** The earliest moment that anything is known of, us since 1970. */
  private firstUs: number;
  /** The latest end of a life that was forgotten. */
  private forgottenUs = 0;
  /** Instances that others speak with and that never reported. */
  readonly expected = new Expected();
  livesUnclean = 0;
  livesEvicted = 0;
  /** Whether this replica lets the lease of a life run out: of several, one does. */
  mayEnd: (life: Life) => boolean = () => true;

  constructor(private readonly options: RegistryOptions) {
    super();
    this.setMaxListeners(0);
    this.clock = options.clock;
    this.firstUs = options.clock.nowUs();
  }

  /**
   * A proxy says who it is: a new life, or one that comes back. `sentUnixUs`: the sender's clock when
   * it said so, 0 = not said.
   *
   * @throws InvalidArgument when another live proxy has this CUID
   * @throws Exhausted when there is no room for another life
   */
  hello(hello: Hello, transport: Transport, sentUnixUs: number): Arrival {
    const nowUs = this.clock.nowUs();
    const known = this.ownLife(hello);
    const ended: Life[] = [];
    const before = this.byProxy.get(hello.proxyId);
    if (known === undefined && this.active.size >= this.options.instancesMax) {
      throw new Exhausted(`${this.active.size} lives are all that instances-max allows`, FULL_RETRY_MS);
    }
    const bootUs = bootTime(hello.bootEpochUs, sentUnixUs, nowUs);
    if (before !== undefined && before !== known && before.endedUs === undefined) {
      this.end(before, false, Math.max(before.lastSeenUs, bootUs));
      ended.push(before);
    }
    const producersGone = known !== undefined && known.bootEpochUs !== hello.bootEpochUs ? [...known.producers] : [];
    const told = known === undefined ? undefined : toldBy(known);
    const life = known ?? newLife(hello, transport, nowUs, this.clock.monotonicMs());
    if (known !== undefined) this.returned(known, hello, transport);
    for (const gone of producersGone) life.producers.delete(gone);
    ended.push(...this.takeAddress(life, hello, bootUs));
    this.index(life);
    const names = [life.cuid, ...life.cuidAliases];
    const { cluster, service } = life;
    this.expected.reported({ cluster, service, names, ip: canonicalIp(hello.ip) });
    this.emit('changed', life);
    return { life, ended, producersGone, told };
  }

  /** A message came from a life: its lease begins anew. */
  heard(life: Life, sentUnixUs: number): void {
    const nowUs = this.clock.nowUs();
    // It was cut off, or took turns with another process of the same proxy: it has not ended after all.
    if (life.endedUs !== undefined && !life.clean) {
      this.revive(life);
      this.emit('revived', life);
    }
    life.lastSeenUs = nowUs;
    life.lastSeenMs = this.clock.monotonicMs();
    if (sentUnixUs !== 0) life.clock.add(sentUnixUs, nowUs, life.lastSeenMs);
    this.show(life);
  }

  status(life: Life, status: Status): void {
    life.status = status;
    life.statusMs = this.clock.monotonicMs();
    this.emit('changed', life);
  }

  progress(life: Life, progress: readonly Progress[]): void {
    const heardMs = this.clock.monotonicMs();
    for (const one of progress) this.job(life, one, heardMs);
    if (progress.length > 0) this.emit('changed', life);
  }

  private job(life: Life, progress: Progress, heardMs: number): void {
    if ((life.jobs.get(progress.job)?.heardMs ?? 0) > heardMs) return;
    life.jobs.delete(progress.job);
    life.jobs.set(progress.job, { progress, heardMs });
    if (life.jobs.size > JOBS_MAX) life.jobs.delete(life.jobs.keys().next().value!);
  }

  /** Another replica heard of a life. Whether it ended and came back is in the log, not here. */
  heardElsewhere(life: Life, heard: HeardElsewhere): void {
    const nowMs = this.clock.monotonicMs();
    const { replica, connected, ageMs, status, jobs } = heard;
    if (connected) life.elsewhere = replica;
    else if (life.elsewhere === replica) life.elsewhere = undefined;
    const isNews = nowMs - ageMs > life.lastSeenMs;
    life.lastSeenMs = Math.max(life.lastSeenMs, nowMs - ageMs);
    life.lastSeenUs = Math.max(life.lastSeenUs, this.clock.nowUs() - ageMs * 1000);
    // What is heard here is nearer than what others tell.
    if (life.streams === 0 && isNews) life.clock.told(heard.clock);
    if (status !== undefined && (life.status === undefined || nowMs - status.ageMs >= life.statusMs)) {
      life.status = status.value;
      life.statusMs = nowMs - status.ageMs;
    }
    for (const { progress, ageMs: jobAgeMs } of jobs) this.job(life, progress, nowMs - jobAgeMs);
    life.shown = this.stateOf(life);
    this.emit('changed', life);
  }

  /** A replica is gone: nobody has a stream of what it had. */
  leftElsewhere(replica: string): void {
    for (const life of this.active) if (life.elsewhere === replica) life.elsewhere = undefined;
  }

  lost(life: Life, loss: Loss): void {
    life.reportsLost = Math.max(0, life.reportsLost + loss.reports);
    life.eventsLost = Math.max(0, life.eventsLost + loss.events);
  }

  /** A stream of this life opened (+1) or ended (-1). */
  stream(life: Life, change: 1 | -1): void {
    life.streams += change;
  }

  /** The life said goodbye. */
  goodbye(life: Life): void {
    this.end(life, true, this.clock.nowUs());
  }

  /** Lets leases run out. To be called about once a second. */
  tick(): void {
    const nowMs = this.clock.monotonicMs();
    for (const life of this.active) {
      if (nowMs - life.lastSeenMs > GONE_MS && this.mayEnd(life))
        this.end(life, false, life.lastSeenUs + GONE_MS * 1000);
      else this.show(life);
    }
    this.evict();
    this.expected.expire(nowMs);
  }

  /** A caller named its callee, which is in the mesh. If nobody there ever reported, it is expected. */
  called(callee: Callee): void {
    const known = callee.cuid === '' ? this.hasService(callee.service) : this.find(callee.cuid) !== undefined;
    if (!known) this.expected.note(callee, this.clock.nowUs(), this.clock.monotonicMs());
  }

  /** By CUID or alias. */
  find(cuid: string): Life | undefined {
    return this.lives.get(cuid) ?? this.aliases.get(cuid);
  }

  /** The life that a proxy is, or was last. */
  ofProxy(proxyId: string): Life | undefined {
    return this.byProxy.get(proxyId);
  }

  stateOf(life: Life): LifeState {
    return stateOf(life, this.clock.monotonicMs());
  }

  all(): Iterable<Life> {
    return this.lives.values();
  }

  get size(): number {
    return this.lives.size;
  }

  get activeLives(): ReadonlySet<Life> {
    return this.active;
  }

  /** Whether some life, past or present, is of this service. */
  hasService(service: string): boolean {
    return this.services.has(service);
  }

  /** How far back `whoHad` can answer, us since 1970. */
  retainedSinceUs(): number {
    return Math.max(this.clock.nowUs() - this.options.retainMs * 1000, this.firstUs, this.forgottenUs);
  }

  /** `cluster` and `network` narrow when not empty. */
  whoHad(ip: string, port: number, atUs: number, cluster: string, network: string): WhoHadAnswer {
    const holdings = this.addresses
      .of(ip)
      .filter(
        ({ life }) => (cluster === '' || life.cluster === cluster) && (network === '' || life.network === network),
      );
    return whoHad(
      holdings,
      atUs,
      port,
      life => this.stateOf(life),
      us => new Date(us / 1000).toISOString(),
    );
  }

  /** Jobs as they came, with how long ago that was. */
  jobsHeard(life: Life): { progress: Progress; ageMs: number }[] {
    const nowMs = this.clock.monotonicMs();
    return [...life.jobs.values()].map(({ progress, heardMs }) => ({ progress, ageMs: Math.round(nowMs - heardMs) }));
  }

  /** Jobs, those with the latest news first. `all`: also those without news for longer than PROGRESS_MS. */
  jobs(life: Life, all: boolean): { progress: Progress; ageMs: number }[] {
    const nowMs = this.clock.monotonicMs();
    return [...life.jobs.values()]
      .map(({ progress, heardMs }) => ({ progress, ageMs: Math.round(nowMs - heardMs) + progress.ageMs }))
      .filter(({ ageMs }) => all || ageMs <= PROGRESS_MS)
      .sort((a, b) => a.ageMs - b.ageMs);
  }

  /**
   * A life from the store, put before a restart or by another replica. The latest of a CUID wins, but for its
   * totals: the store gives back the batches as well, and those that came since have been added here. A life that is
   * known stays the object it is, since sessions hold it.
   */
  restore(stored: StoredLife): Restored {
    const names = [stored.cuid, ...stored.cuidAliases];
    const known = names.map(name => this.find(name)).find(life => life?.proxyId === stored.proxyId);
    const before = known === undefined ? undefined : { ...toldBy(known), endedUs: known.endedUs };
    // What this replica has put and the store has not placed yet comes after, and replaces it everywhere.
    if (known !== undefined && known.puts > 0) return { before, now: known };
    const life = fromStored(stored, this.clock.monotonicMs());
    const now = known === undefined ? life : this.merged(known, life);
    if (now.endedUs === undefined) this.active.add(now);
    else this.ended.add(now);
    for (const span of [...now.addresses]) this.addresses.add(now, span);
    this.firstUs = Math.min(this.firstUs, now.firstSeenUs);
    this.index(now);
    const { cluster, service } = now;
    this.expected.reported({ cluster, service, names, ip: now.addresses.at(-1)?.ip ?? '' });
    this.emit('changed', now);
    return { before, now };
  }

  /** What a known life is, taken over from what was stored; what it does, and its totals, stay. */
  private merged(known: Life, stored: Life): Life {
    const { streams, lastSeenUs, producers } = known;
    this.remove(known);
    const { transport, addresses, firstSeenUs, endedUs, clean, eventsLostMax, shown, lastSeenMs } = stored;
    Object.assign(known, identityOf(stored), { transport, addresses, firstSeenUs, endedUs, clean, eventsLostMax });
    Object.assign(known, { shown, lastSeenMs, producers: stored.producers });
    known.lastSeenUs = Math.max(lastSeenUs, stored.lastSeenUs);
    if (streams > 0) for (const producer of producers) known.producers.add(producer);
    return known;
  }

  /** The life that a hello continues: by CUID, else by one of its aliases. */
  private ownLife(hello: Hello): Life | undefined {
    for (const cuid of [hello.cuid, ...hello.cuidAliases]) {
      const life = this.find(cuid);
      if (life === undefined) continue;
      if (life.proxyId === hello.proxyId) return life;
      if (isConnected(life)) throw new InvalidArgument('hello.cuid', cuid, `a CUID that ${life.proxyId} does not use`);
      if (cuid === hello.cuid) return life;
    }
    return undefined;
  }

  private returned(life: Life, hello: Hello, transport: Transport): void {
    if (life.cuid !== hello.cuid) this.lives.delete(life.cuid);
    const formerNames = [life.cuid, ...life.cuidAliases].filter(name => name !== hello.cuid);
    const aliases = [...new Set([...hello.cuidAliases, ...formerNames])].slice(0, 16);
    if (this.byProxy.get(life.proxyId) === life) this.byProxy.delete(life.proxyId);
    this.countService(life, -1);
    const counters = life.bootEpochUs === hello.bootEpochUs ? highest(life.counters, hello.counters) : hello.counters;
    Object.assign(life, identityOf(hello), { transport, cuidAliases: aliases, counters });
    if (life.endedUs !== undefined) this.revive(life);
  }

  /** A life that was given up too early. */
  private revive(life: Life): void {
    life.endedUs = undefined;
    const span = life.addresses.at(-1);
    if (span !== undefined) delete span.toUs;
    life.clean = false;
    life.eventsLostMax = 0;
    this.ended.delete(life);
    this.active.add(life);
  }

  /** Notes the life's address; ends the lives whose address it has taken over. */
  private takeAddress(life: Life, hello: Hello, bootUs: number): Life[] {
    const ip = canonicalIp(hello.ip);
    const current = life.addresses.at(-1);
    if (current?.ip === ip) {
      this.addresses.addPorts(current, hello.ports);
      return [];
    }
    const nowUs = this.clock.nowUs();
    if (current !== undefined) current.toUs = nowUs;
    if (ip === '') return [];
    const others = this.addresses.of(ip).filter(({ life: other }) => sameNetwork(other, life) && other !== life);
    const ended = others
      .filter(({ life: other, span }) => other.endedUs === undefined && this.replaces(hello.ports, other, span.ports))
      .map(({ life: other }) => other);
    for (const other of ended) this.end(other, false, Math.max(other.lastSeenUs, bootUs));
    // The proxy had the address when it started, unless someone else was heard on it after that.
    const heardBefore = Math.max(0, ...ended.map(other => other.lastSeenUs));
    const fromUs = current === undefined ? Math.max(bootUs, heardBefore) : nowUs;
    this.addresses.add(life, { ip, ports: hello.ports, fromUs: Math.min(fromUs, nowUs) });
    return ended;
  }

  /**
   * Whether a proxy that comes up on an address means that the life which had it is over. Several
   * proxies may share one address (host network), so one that is connected, or has just sent a single
   * message, stays unless it listened on the same port.
   */
  private replaces(ports: readonly number[], other: Life, otherPorts: readonly number[]): boolean {
    const heard = other.transport === 'unary' ? this.stateOf(other) === 'INSTANCE_STATE_LIVE' : isConnected(other);
    return !heard || ports.some(port => otherPorts.includes(port));
  }

  private end(life: Life, clean: boolean, atUs: number): void {
    if (life.endedUs !== undefined) return;
    life.endedUs = atUs;
    life.clean = clean;
    const span = life.addresses.at(-1);
    if (span !== undefined) span.toUs = atUs;
    if (!clean) {
      this.livesUnclean += 1;
      life.eventsLostMax = eventsLostMax(life, (atUs - life.lastSeenUs) / 1000);
    }
    this.active.delete(life);
    this.ended.add(life);
    life.shown = 'INSTANCE_STATE_GONE';
    this.emit('ended', life);
    this.emit('changed', life);
  }

  /** Tells watchers when a lease made the state another one. */
  private show(life: Life): void {
    const state = this.stateOf(life);
    if (state === life.shown) return;
    life.shown = state;
    this.emit('changed', life);
  }

  private index(life: Life): void {
    this.lives.set(life.cuid, life);
    for (const alias of life.cuidAliases) {
      // A name in use is not taken away from another proxy.
      const holder = this.find(alias);
      if (holder === undefined || holder.proxyId === life.proxyId) this.aliases.set(alias, life);
    }
    this.countService(life, 1);
    if (life.endedUs !== undefined) return;
    this.byProxy.set(life.proxyId, life);
    this.active.add(life);
  }

  private countService(life: Life, change: 1 | -1): void {
    const count = (this.services.get(life.service) ?? 0) + change;
    if (count > 0) this.services.set(life.service, count);
    else this.services.delete(life.service);
  }

  private evict(): void {
    const oldestUs = this.clock.nowUs() - this.options.retainMs * 1000;
    for (const life of this.ended) {
      if (this.ended.size <= this.options.retainMax && life.endedUs! >= oldestUs) break;
      this.forgottenUs = Math.max(this.forgottenUs, life.endedUs!);
      this.remove(life);
      this.livesEvicted += 1;
    }
  }

  private remove(life: Life): void {
    this.lives.delete(life.cuid);
    for (const alias of life.cuidAliases) if (this.aliases.get(alias) === life) this.aliases.delete(alias);
    if (this.byProxy.get(life.proxyId) === life) this.byProxy.delete(life.proxyId);
    this.active.delete(life);
    this.ended.delete(life);
    this.countService(life, -1);
    this.addresses.remove(life);
  }
}

const toldBy = ({ service, bootEpochUs, configErrors, counters }: Life): Told => ({
  service,
  bootEpochUs,
  configErrors,
  counters,
});

/**
 * When a proxy started, by our clock: as long before its hello as its own clock says. Now, if it does
 * not say or says something odd.
 */
function bootTime(bootEpochUs: number, sentUnixUs: number, nowUs: number): number {
  const ageUs = sentUnixUs - bootEpochUs;
  const odd = bootEpochUs === 0 || sentUnixUs === 0 || ageUs < 0 || ageUs > BOOT_BEFORE_MS_MAX * 1000;
  return odd ? nowUs : nowUs - ageUs;
}
