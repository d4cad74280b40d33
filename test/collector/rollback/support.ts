/** Shops with a policy of their own. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Plain } from '../ingest-support.js';
import { Shop } from './shop.js';

/** A charge that fails dooms; nothing is learned. */
export const NAMED =
  'mode: enforce\nlearn: {enabled: false}\nsteps:\n  - {service: payment.shop, operation: POST /charge}\n';

export function startShop(args: readonly string[] = []): Promise<Shop> {
  const path = join(mkdtempSync(join(tmpdir(), 'meshpulse-rollback-')), 'policy.yaml');
  writeFileSync(path, NAMED);
  return Shop.start(['--rollback-policy', path, ...args]);
}

export async function verdictsOf(shop: Shop): Promise<Plain[]> {
  return ((await shop.collector.call('Rollback.List', { pageSize: 1000 }))['verdicts'] ?? []) as Plain[];
}

/** A checkout that runs, whose payment has just failed after two steps that are to be undone. */
export async function failAfterTwo(shop: Shop): Promise<string> {
  const { gateway } = shop.sidecars;
  const key = shop.newKey();
  await gateway.began(key, shop.eventOf(key, 'entry'));
  const hold = shop.call(key, 'release', { at: 17, ms: 2, operation: 'POST /hold' });
  await gateway.rows(shop.call(key, 'reserve'), hold, shop.call(key, 'charge', { outcome: 'failed' }));
  return key;
}

export async function planOf(shop: Shop, id: string): Promise<Plain[]> {
  return (await shop.collector.call('Rollback.GetPlan', { id }))['steps'] as Plain[];
}
