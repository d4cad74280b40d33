// Which services are down mesh-wide, by the word of several reporters. Pure but for the table it keeps.
//
// One proxy that sees a service fail may itself be the fault: it is outvoted. And a service is not down
// because one zone cannot reach it: 5 % of the calls keep their retries, and success lifts the hint.

/** Looked back on, in slots. */
const SLOT_MS = 1000;
const SLOTS = 10;

/** A reporter has a say from this many calls in the window on, and says `down` from this share of failures on. */
const CALLS_MIN = 20;
const FAILED_SHARE = 0.9;

/** Share of the reporters that have to say so, their number, and that of their workloads. */
const QUORUM = 2 / 3;
const REPORTERS_MIN = 3;
const WORKLOADS_MIN = 2;

/** A service that is down is up again when less than this share of all calls to it fails. */
const UP_SHARE = 0.5;

/** Callees and reporters of each that are looked at, at most; the least recently heard go first. */
const CALLEES_MAX = 2000;
const REPORTERS_MAX = 256;

interface Slot {
  at: number;
  calls: number;
  failures: number;
}

interface Reporter {
  readonly workload: string;
  readonly slots: Slot[];
}

interface Callee {
  down: boolean;
  readonly reporters: Map<string, Reporter>;
}

const newCallee = (): Callee => ({ down: false, reporters: new Map() });

export interface Judgement {
  readonly callee: string;
  readonly down: boolean;
  /** `name=value`. */
  readonly evidence: readonly string[];
}

export class DownTable {
  private readonly callees = new Map<string, Callee>();

  /** Calls of one reporter that ended: `failures` of `calls` failed. */
  note(callee: string, reporter: string, workload: string, calls: number, failures: number, nowMs: number): void {
    const known = touch(this.callees, callee, newCallee, CALLEES_MAX);
    const { slots } = touch(known.reporters, reporter, (): Reporter => ({ workload, slots: [] }), REPORTERS_MAX);
    const at = Math.floor(nowMs / SLOT_MS);
    let slot = slots.at(-1);
    if (slot?.at !== at) slots.push((slot = { at, calls: 0, failures: 0 }));
    slot.calls += calls;
    slot.failures += failures;
    while (slots[0]!.at <= at - SLOTS) slots.shift();
  }

  isDown(callee: string): boolean {
    return this.callees.get(callee)?.down ?? false;
  }

  /** Those that went down or up since the last call. */
  judge(nowMs: number): Judgement[] {
    const changes: Judgement[] = [];
    for (const [callee, known] of this.callees) {
      const { down, evidence } = verdictOn(known, Math.floor(nowMs / SLOT_MS));
      if (down !== known.down) changes.push({ callee, down, evidence });
      known.down = down;
    }
    return changes;
  }

  /** Who called it in the window. */
  reportersOf(callee: string): string[] {
    return [...(this.callees.get(callee)?.reporters.keys() ?? [])];
  }

  down(): string[] {
    return [...this.callees].filter(([, { down }]) => down).map(([callee]) => callee);
  }
}

function verdictOn({ down, reporters }: Callee, at: number): { down: boolean; evidence: string[] } {
  const sums = [...reporters.values()].map(({ workload, slots }) => {
    const live = slots.filter(slot => slot.at > at - SLOTS);
    const sum = (of: (slot: Slot) => number): number => live.reduce((total, slot) => total + of(slot), 0);
    return { workload, calls: sum(slot => slot.calls), failures: sum(slot => slot.failures) };
  });
  const heard = sums.filter(({ calls }) => calls > 0);
  const voters = heard.filter(({ calls }) => calls >= CALLS_MIN);
  const against = voters.filter(({ calls, failures }) => failures >= FAILED_SHARE * calls);
  const calls = heard.reduce((total, one) => total + one.calls, 0);
  const failures = heard.reduce((total, one) => total + one.failures, 0);
  const evidence = [
    `reporters=${heard.length}`,
    `voters=${voters.length}`,
    `against=${against.length}`,
    `calls=${calls}`,
    `failures=${failures}`,
  ];
  // Without calls nobody knows any more: not down.
  if (down) return { down: calls > 0 && failures >= UP_SHARE * calls, evidence };
  const workloads = (of: readonly { workload: string }[]): number => new Set(of.map(one => one.workload)).size;
  const enough =
    voters.length >= Math.min(REPORTERS_MIN, heard.length) &&
    workloads(against) >= Math.min(WORKLOADS_MIN, workloads(heard)) &&
    against.length >= QUORUM * voters.length;
  return { down: voters.length > 0 && enough, evidence };
}

function touch<T>(map: Map<string, T>, key: string, make: () => T, max: number): T {
  const value = map.get(key) ?? make();
  map.delete(key);
  map.set(key, value);
  if (map.size > max) map.delete(map.keys().next().value!);
  return value;
}
