/** Transactions as decisions look at them, written briefly. */
import { Learner } from '../../../collector/src/rollback/learner.js';
import type { View, ViewStep } from '../../../collector/src/rollback/view.js';

export const NOW = 1_700_000_000_000_000;
export const KIND = 'gateway.shop POST /checkout';

const OUTCOMES = { ok: 1, failed: 2, declined: 3, cancelled: 4, refused: 5, running: 0 } as const;

export interface TestStep {
  /** `service METHOD /path`. */
  readonly name: string;
  /** Of its caller. */
  readonly by?: string;
  /** ms after the transaction began. */
  readonly at: number;
  readonly ms?: number;
  readonly outcome?: keyof typeof OUTCOMES;
  readonly http?: number;
  readonly unknown?: boolean;
  readonly parent?: number;
  readonly group?: string;
  readonly cuid?: string;
}

let events = 0;

/** `from`: when it began, us. Step 0 is the entry. */
export function view(steps: readonly TestStep[], more: Partial<View> = {}, from = NOW): View {
  const key = more.key ?? (++events).toString(16).padStart(32, '0');
  return {
    key,
    keys: [[0, 0, 0, 1]],
    requests: [],
    kind: KIND,
    kinds: [KIND],
    entries: 1,
    state: 'RUNNING',
    thinned: false,
    steps: steps.map((step, at) => stepOf(step, at, from)),
    ...more,
  };
}

function stepOf(step: TestStep, at: number, from: number): ViewStep {
  const [service, ...operation] = step.name.split(' ');
  const { by = '', ms = 10, outcome = 'ok', parent = at === 0 ? -1 : 0 } = step;
  const entry = at === 0;
  return {
    eventId: (++events).toString(16).padStart(16, '0'),
    parent,
    group: step.group ?? `parent ${parent} ${by}`,
    caller: entry ? '' : by,
    callerCuid: entry ? '' : `cuid-${by}`,
    service: service!,
    operation: operation.join(' '),
    destination: `${service!}.svc.cluster.local`,
    cuid: step.cuid ?? `cuid-${service!}`,
    entry,
    call: !entry,
    ended: outcome !== 'running',
    outcome: OUTCOMES[outcome],
    http: step.http ?? (outcome === 'failed' ? 503 : 200),
    grpc: undefined,
    unknown: step.unknown ?? false,
    beganUs: from + step.at * 1000,
    endUs: from + (step.at + ms) * 1000,
    workUs: ms * 1000,
  };
}

export const PAY = 'payment.shop POST /charge';
export const RESERVE = 'stock.shop POST /reserve';
export const RELEASE = 'stock.shop POST /release';
export const SHIP = 'shipping.shop POST /ship';
export const NOTIFY = 'mail.shop POST /notify';
const GATEWAY = 'gateway.shop POST /checkout';
const BY = 'gateway.shop';

/** reserve, then pay, then ship and notify; `pay: 'failed'` ends with release instead, and the whole fails. */
export function checkout(
  outcome: 'ok' | 'failed' | 'harmless' | 'parallel',
  from = NOW,
  more: Partial<View> = {},
): View {
  const failed = outcome === 'failed' || outcome === 'parallel';
  const steps: TestStep[] = [
    { name: GATEWAY, at: 0, ms: 100, outcome: failed ? 'failed' : 'ok' },
    { name: RESERVE, by: BY, at: 5 },
    { name: PAY, by: BY, at: 20, outcome: outcome === 'ok' ? 'ok' : 'failed' },
    ...(outcome === 'failed' ? [{ name: RELEASE, by: BY, at: 40 }] : []),
    ...(outcome === 'failed'
      ? []
      : [
          { name: SHIP, by: BY, at: 40 },
          { name: NOTIFY, by: BY, at: 50, ms: 30 },
        ]),
  ];
  return view(steps, { state: failed ? 'FAILED' : 'SUCCEEDED', ...more }, from);
}

/** The same while it runs: payment has just failed. */
export const failing = (from = NOW, more: Partial<View> = {}): View =>
  view(
    [
      { name: GATEWAY, at: 0, outcome: 'running' },
      { name: RESERVE, by: BY, at: 5 },
      { name: PAY, by: BY, at: 20, outcome: 'failed' },
    ],
    more,
    from,
  );

/** A learner that has seen `ok` good checkouts, then as many of each sort as asked. */
export function taught(ok: number, sorts: Partial<Record<'failed' | 'harmless' | 'parallel', number>> = {}): Learner {
  const learner = new Learner();
  for (let n = 0; n < ok; n++) learner.add(checkout('ok'), NOW);
  for (const [sort, count] of Object.entries(sorts)) {
    for (let n = 0; n < count; n++) learner.add(checkout(sort as 'failed'), NOW);
  }
  return learner;
}
