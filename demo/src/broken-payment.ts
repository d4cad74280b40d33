// Payment breaks for good: the same failure with rollback off and with it on, side by side.
import { setTimeout as sleep } from 'node:timers/promises';
import type { CollectorView } from './collector-view.js';
import { quantile } from './mesh/load.js';
import type { PolicyFile } from './policy-file.js';
import { screen, table } from './screen.js';
import type { Shop } from './shop/shop.js';
import type { WasteReport } from './shop/waste.js';

/** Failures are counted for so long in each mode. */
const PHASE_MS = 9000;
/** Work for the last of them goes on for less than this. */
const LATE_WORK_MS = 1000;
/** The collector looks at its policy file every second. */
const POLICY_WITHIN_MS = 10_000;
/** Work in vain with rollback on, at most this share of that with rollback off. */
const IN_VAIN_RATIO = 0.2;
/** Fewer retries at least by this; the collector takes some seconds to be sure that a service is down. */
const RETRIES_RATIO = 0.8;

/** What the story lends to its parts. */
export interface Narrator {
  promise(text: string, seen: boolean, detail: string): void;
  attempt<T>(ms: number, probe: () => Promise<T | undefined>): Promise<T | undefined>;
}

export interface BrokenStep {
  service: string;
  operation: string;
}

/** One mode of two. */
interface Phase extends WasteReport {
  /** Reservations given back, and steps that the warehouse was told to undo. */
  released: number;
  signals: number;
}

export interface Comparison {
  off: Phase;
  on: Phase;
}

/** Leaves payment broken, and rollback on. */
export async function breakPayment(
  shop: Shop,
  view: CollectorView,
  policy: PolicyFile,
  step: BrokenStep,
  told: Narrator,
): Promise<Comparison> {
  screen.title('Payment breaks; rollback is off');
  shop.faults.paymentBroken = true;
  const off = await phase(shop);
  screen.title('Payment is still broken; the policy names the step, and rollback is on');
  await policy.write('enforce', [step]);
  await told.attempt(POLICY_WITHIN_MS, async () =>
    (await view.rollbackMode()) === 'ROLLBACK_MODE_ENFORCE' ? true : undefined,
  );
  return { off, on: await phase(shop) };
}

async function phase(shop: Shop): Promise<Phase> {
  const report = shop.waste.begin();
  const { released, signals } = shop.warehouse;
  await sleep(PHASE_MS);
  shop.waste.begin();
  const { warehouse } = shop;
  const counted = { released: warehouse.released - released, signals: warehouse.signals - signals };
  await sleep(LATE_WORK_MS);
  return { ...report(), ...counted };
}

/** The two beside each other, per 100 failed checkouts; and what was promised. */
export function compare({ off, on }: Comparison, services: string[], told: Narrator): void {
  const per100 = (count: number, { failed }: Phase) => (failed === 0 ? 0 : Math.round((100 * count) / failed));
  const row = (text: string, of: (report: Phase) => number) => [text, per100(of(off), off), per100(of(on), on)];
  const at = (service: string) => (report: WasteReport) => report.inVain.get(service) ?? 0;
  const all = (report: WasteReport) => [...report.inVain.values()].reduce((sum, n) => sum + n, 0);
  const last = (report: WasteReport) => Math.round(quantile(report.lastWorkMs, 0.9));
  const rows = [
    ...services.map(service => row(`handled in vain by ${service}`, at(service))),
    row('retries', report => report.retries),
    ['last work for nine in ten ended after, ms', last(off), last(on)],
    row('reservations given back', report => report.released),
    row('steps that signals told to undo', report => report.signals),
  ];
  screen.note(table(['PER 100 FAILED CHECKOUTS', 'ROLLBACK OFF', 'ON'], rows));
  const [vainOff, vainOn] = [all(off) / off.failed, all(on) / on.failed];
  told.promise(
    'with rollback on, at most a fifth of the work in vain',
    off.failed > 0 && on.failed > 0 && vainOff > 0 && vainOn <= IN_VAIN_RATIO * vainOff,
    `${vainOff.toFixed(2)} requests per failed checkout, then ${vainOn.toFixed(2)}`,
  );
  told.promise(
    'and fewer retries of what is down',
    on.retries / on.failed <= RETRIES_RATIO * (off.retries / off.failed),
    `${off.retries} for ${off.failed} failed checkouts, then ${on.retries} for ${on.failed}`,
  );
}
